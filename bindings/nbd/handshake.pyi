"""The fixed newstyle handshake. Nothing here is for Python."""
