"""What a primary sends, looked at and appended; see stream.pxd.

Native only: nothing of it is seen from Python.
"""
