"""Entering, sealing and planning segments; see segments.pxd.

Native only: nothing of it is seen from Python.
"""
