"""The checkpoint's step machine; see checkpoint.pxd for the order and the rules.

Native only: nothing of it is seen from Python.
"""
