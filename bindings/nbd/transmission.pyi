"""The transmission. Nothing here is for Python."""
