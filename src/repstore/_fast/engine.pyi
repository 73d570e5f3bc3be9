"""Dispatch of inputs to the rooms, and the turn; see engine.pxd.

Native only: nothing of it is seen from Python.
"""
