"""Dispatch between engine and volumes; see primary and replica for what happens then.

Native only: nothing of it is seen from Python.
"""
