"""Verification between copies; see merkle.pxd.

Native only: nothing of it is seen from Python.
"""
