"""Building frames; transport cuts and checks what arrives.

Native only: nothing of it is seen from Python.
"""
