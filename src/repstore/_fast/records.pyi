"""A volume's next records in the open batch; see records.pxd.

Native only: nothing of it is seen from Python.
"""
