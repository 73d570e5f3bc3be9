"""The scrub of an engine; see scrub.pxd.

Native only: nothing of it is seen from Python.
"""
