"""Routing of requests to the primary, here or on another node; see exports.pxd.

Native only: nothing of it is seen from Python.
"""
