"""Append, close, write and complete batches; see log.pxd for the rules.

Native only: nothing of it is seen from Python.
"""
