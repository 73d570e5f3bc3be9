"""The bounded ring between the engine and its control side."""

def decode_event(kind: int, volume: int, node: int, epoch: int, a: int, b: int, c: int, d: int,
                 text: bytes) -> tuple[object, ...]: ...
