"""Load and replay; the decisions (which batches count) were made by store/recovery.

Native only: nothing of it is seen from Python.
"""
