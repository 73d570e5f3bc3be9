"""Feeding in-process calls into exports; see calls.pxd.

Native only: nothing of it is seen from Python.
"""
