"""Verification between copies; see verify.pxd.

Native only: nothing of it is seen from Python.
"""
