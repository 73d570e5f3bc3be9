"""Appending what the primary sends, sealing, learning; see replica.pxd for the rules.

Native only: nothing of it is seen from Python.
"""
