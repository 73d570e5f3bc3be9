"""The bounded ring between the engine and its control side; see events.pxd.

Native only: nothing of it is seen from Python.
"""
