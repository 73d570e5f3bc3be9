"""Which contents of a block may have survived a crash.

Native only: nothing of it is seen from Python.
"""
