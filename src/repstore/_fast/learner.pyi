"""Beginning to learn, and taking the copies of blocks; see learner.pxd.

Native only: nothing of it is seen from Python.
"""
