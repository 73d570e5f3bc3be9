"""Files that a command is given to read: only those that have an end.

A pipe or a socket would be waited for, a device has no end and may do something when it is opened:
all of them are refused before they are opened, and what takes a file's place meanwhile is not waited for.
"""
from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from repstore import errors

NO_FILES = (                                 # what a path may lead to instead
    (stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"), (stat.S_ISBLK, "a block device"))


def open_regular(path: Path, what: str) -> BinaryIO:
    """Open a file to read; `what` it must be, in the error. Raises ConfigError for what is no regular
    file, OSError for one that cannot be opened."""
    _require_regular(path, os.stat(path), what)
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY), "rb")
    try:
        _require_regular(path, os.fstat(file.fileno()), what)
    except errors.ConfigError:
        file.close()
        raise
    return file


def read_regular(path: Path, what: str, bytes_max: int) -> bytes:
    """All of a file. Raises ConfigError for one that is larger than `bytes_max` bytes, is no regular file
    or cannot be read."""
    try:
        with open_regular(path, what) as file:
            data = file.read(bytes_max + 1)          # not its size: it may grow
    except OSError as error:
        raise errors.ConfigError(f"{path}: {error.strerror or error}") from error
    if len(data) > bytes_max:
        raise errors.ConfigError(f"{path}: is larger than {bytes_max} bytes: {what} must be smaller")
    return data


def _require_regular(path: Path, found: os.stat_result, what: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for is_kind, name in NO_FILES if is_kind(found.st_mode)), "no file")
        raise errors.ConfigError(f"{path}: is {kind}: {what} must be a regular file")
