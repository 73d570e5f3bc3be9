"""Streams, tails, leases and joins; see primary.pxd for the rules.

Native only: nothing of it is seen from Python.
"""
