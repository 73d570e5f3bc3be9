"""Whether one block of a history is a register.

Native only: nothing of it is seen from Python.
"""
