"""The bounded pool of requests and the pools of aligned buffers.

Native only: nothing of it is seen from Python.
"""
