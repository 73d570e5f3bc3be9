"""Counting what lives in each segment; see recount.pxd.

Native only: nothing of it is seen from Python.
"""
