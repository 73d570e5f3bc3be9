"""Victim choice and moving; see cleaner.pxd.

Native only: nothing of it is seen from Python.
"""
