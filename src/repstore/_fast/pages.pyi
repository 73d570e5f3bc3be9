"""Page loads: asynchronous while the engine runs, at once while it recovers.

Native only: nothing of it is seen from Python.
"""
