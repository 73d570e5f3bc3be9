"""Every exception repstore raises on purpose: one class for each different reaction of a caller.

    RepstoreError                whatever else: report it
    +-- ConfigError              the caller asked for something that cannot be: change the request
    +-- OutOfRangeError          offset or length outside the volume: change the request
    +-- NotFoundError            no such volume, node or store: create it, or fix the name
    +-- ExistsError              there is one already: open it, or take another name
    +-- BusyError                another process holds it: wait, or stop that process
    +-- NoSpaceError             the store is full: trim or wait, then try again
    +-- CorruptionError          these bytes are not what was written: repair from a peer
    +-- FormatVersionError       written by a newer repstore: upgrade; nothing is damaged
    +-- FencedError              somebody newer took over: attach again, do not retry
    +-- StoreFailedError         a write or a flush failed: close and reopen, never retry
    +-- NoQuorumError            too few copies just now: retry later
    +-- UnavailableError         a node, a disk or the coordination store does not answer: retry later
    +-- RemoteProtocolError      the other side broke the protocol: drop the connection
    +-- OutcomeUnknownError      it may or may not have happened: look, then decide

1. Every error has an `errno`, so that a frontend can answer without knowing the class.
2. A message names the value that was refused and the limit it broke.
3. Bugs are AssertionError, caught only where a node answers a question: whoever asked is told.
   This module imports nothing of repstore.
"""
import errno as _errno
from typing import ClassVar


class RepstoreError(Exception):
    """Base of all. `errno` is the POSIX number a block client would be given."""

    default_errno: ClassVar[int] = _errno.EIO

    def __init__(self, message: str, *, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = self.default_errno if errno is None else errno


class ConfigError(RepstoreError):
    """A name, size, option or file that cannot be used as asked. Nothing was changed."""

    default_errno = _errno.EINVAL


class OutOfRangeError(RepstoreError):
    """A request that does not lie inside its volume, or has no length."""

    default_errno = _errno.EINVAL


class NotFoundError(RepstoreError):
    """No volume, node or store of that name."""

    default_errno = _errno.ENOENT


class ExistsError(RepstoreError):
    """The name is taken, or the file carries something already."""

    default_errno = _errno.EEXIST


class BusyError(RepstoreError):
    """A store is locked, or a cluster directory is live, by another process."""

    default_errno = _errno.EBUSY


class NoSpaceError(RepstoreError):
    """The store is full. Clears itself when blocks are trimmed or the cleaner catches up."""

    default_errno = _errno.ENOSPC


class CorruptionError(RepstoreError):
    """Bytes read are not the bytes written.

    `where` is the address (file, block, segment, ...), `expected` and `found` what should
    stand there and what does.
    """

    def __init__(self, where: str, expected: object, found: object, *, errno: int | None = None) -> None:
        super().__init__(f"{where}: expected {expected}, found {found}", errno=errno)
        self.where = where
        self.expected = expected
        self.found = found


class FormatVersionError(RepstoreError):
    """The format is newer than this code, or uses a feature it does not know."""

    default_errno = _errno.ENOTSUP


class FencedError(RepstoreError):
    """A newer epoch, incarnation or attach is in force; this one will never be served again."""

    default_errno = _errno.ESTALE


class StoreFailedError(RepstoreError):
    """A write or flush of the store failed, so what is on disk is not known: reopen it."""

    default_errno = _errno.ESHUTDOWN


class NoQuorumError(RepstoreError):
    """Fewer copies than `min_copies` can acknowledge just now."""

    default_errno = _errno.EAGAIN


class UnavailableError(RepstoreError):
    """The node, disk or coordination store that has to answer does not. Nothing was changed."""

    default_errno = _errno.EHOSTUNREACH


class RemoteProtocolError(RepstoreError):
    """Bytes from a peer or client that no correct program sends."""

    default_errno = _errno.EPROTO


class OutcomeUnknownError(RepstoreError):
    """The answer was lost: the change may or may not have been made."""

    default_errno = _errno.ETIMEDOUT


_BY_ERRNO: dict[int, type[RepstoreError]] = {
    _errno.EINVAL: OutOfRangeError,
    _errno.ENOENT: NotFoundError,
    _errno.EEXIST: ExistsError,
    _errno.EBUSY: BusyError,
    _errno.ENOSPC: NoSpaceError,
    _errno.EDQUOT: NoSpaceError,
    _errno.ENOTSUP: FormatVersionError,
    _errno.ESTALE: FencedError,
    _errno.EPERM: FencedError,
    _errno.ESHUTDOWN: StoreFailedError,
    _errno.EAGAIN: NoQuorumError,
    _errno.EHOSTUNREACH: UnavailableError,
    _errno.ENOTCONN: UnavailableError,
    _errno.ECONNREFUSED: UnavailableError,
    _errno.ECONNRESET: UnavailableError,
    _errno.EPIPE: UnavailableError,
    _errno.EPROTO: RemoteProtocolError,
    _errno.ETIMEDOUT: OutcomeUnknownError,
}


def error_from_errno(errno: int, text: str) -> RepstoreError:
    """The exception for an errno that the data plane answered; `text` says what was asked."""
    if errno == _errno.EIO:
        return CorruptionError(text, "verified blocks", "an I/O error or a wrong checksum", errno=errno)
    kind = _BY_ERRNO.get(errno, RepstoreError)
    name = _errno.errorcode.get(errno, str(errno))
    return kind(f"{text}: {name}", errno=errno)
