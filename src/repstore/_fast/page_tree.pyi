"""Sparse shadow-paged arrays; see page_tree.pxd for the idea and the invariants.

Native only: nothing of it is seen from Python.
"""
