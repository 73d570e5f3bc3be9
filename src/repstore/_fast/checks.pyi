"""The numbered invariants of `state`, asserted.

Native only: nothing of it is seen from Python.
"""
