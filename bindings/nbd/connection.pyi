"""Connections and operations: taken, kept, given back. Nothing here is for Python."""
