"""A history file from anybody: it is refused with a line number, or judged.

First byte: bit 0 puts a good header in front, bit 1 a right last line behind.
"""
import io

from repstore import errors
from repstore.check import history, history_file

HEADER = b'{"history":1,"block_size":4096,"blocks":64,"initial":"zero"}\n'
LINES_MAX = 64


def run(data: bytes) -> None:
    """One input."""
    style, text = data[:1] or b"\0", data[1:]
    if style[0] & 1:
        text = HEADER + text
    if style[0] & 2:
        lines = text.count(b"\n") - 1
        text += b'{"op":"end","operations":%d}\n' % max(0, lines)
    try:
        found = history_file.load(io.BytesIO(text))
    except errors.ConfigError as error:
        if "line" not in str(error):
            raise
        return
    # what is so short is judged in no time, whatever it claims
    assert len(found.operations) <= len(text) // history_file.LINE_BYTES_MIN
    try:
        history.check(found)
    except errors.ConfigError:
        return
