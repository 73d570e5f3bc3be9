"""Bad blocks brought back from other copies; see repair.pxd.

Native only: nothing of it is seen from Python.
"""
