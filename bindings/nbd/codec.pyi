"""The NBD frontend: the table of calls that the engine's loop makes on a connection."""

def frontend_capsule() -> object:
    """The frontend as a capsule named "repstore.frontend", for the engine to plug in."""

def wire_sizes() -> dict[str, int]:
    """Bytes of every packed struct of the wire: what padding would silently change."""
