"""Tails and resync copies; see transfer.pxd.

Native only: nothing of it is seen from Python.
"""
