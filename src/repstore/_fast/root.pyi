"""Write and read the checkpoint root. Lengths are checked against the room before any use.

Native only: nothing of it is seen from Python.
"""
