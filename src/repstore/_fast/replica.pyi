"""Following a primary: sessions, seals, tails, answers; see replica.pxd for the rules.

Native only: nothing of it is seen from Python.
"""
