def read_byte(block_bytes: int, offset_bytes: int) -> int:
    """A byte of a zeroed block of the heap; block_bytes and more is past its end, for AddressSanitizer."""

def shift_one(by_bits: int) -> int:
    """1 << by_bits in a C int; 32 and more is undefined, for UndefinedBehaviorSanitizer."""

def count_in_two_threads() -> int:
    """Two threads add one to the same counter without an order, for ThreadSanitizer. Returns the counter."""
