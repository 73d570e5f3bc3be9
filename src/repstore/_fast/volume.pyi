"""Apply, commit, look up; see volume.pxd for the flow and the rules.

Native only: nothing of it is seen from Python.
"""
