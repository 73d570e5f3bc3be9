"""Operations and clusters of one block, sorted and found.

Native only: nothing of it is seen from Python.
"""
