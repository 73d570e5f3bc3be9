"""Reads, writes, trims and flushes at the primary; see service.pxd for the rules.

Native only: nothing of it is seen from Python.
"""
