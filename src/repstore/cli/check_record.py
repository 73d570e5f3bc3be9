"""`repstore check record`: an NBD proxy that writes down what passes.

    exit code   0  ended by SIGINT or SIGTERM, the history is whole
                2  there is none, or not all of it: no server at the start, nobody opened the
                   volume, the file could not be written
               64  an option that can never be right, a file that is there, an address that
                   cannot be listened at
              130  interrupted before clients could connect

One asyncio thread. SIGINT and SIGTERM end the recording; SIGUSR1 marks in it that all copies
lost power just now, SIGUSR2 that all their processes died while the machines stayed up.
"""
from __future__ import annotations

import asyncio
import ipaddress
import itertools
import os
import re
import signal
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from repstore import config, errors
from repstore.check.nbd_observer import NbdObserver, UnrecordableError
from repstore.check.recorder import Recorder, check_block_size
from repstore.cli.check_end import told
from repstore.cli.options import Json, complain
from repstore.cli.show import print_json

READ_BYTES = 256 * config.KIB
NBD_PORT = 10_809
PORT_MAX = 65_535
CONNECT_TIMEOUT_S = 10.0      # a server that does not take a connection by then is not there
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)")
Address = Path | tuple[str, int]


def record(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The history to write: a new file.")],
    server: Annotated[str, typer.Option(
        "--server", metavar="URI", help="Where the volume is served: an NBD URI, a socket, HOST:PORT.")],
    listen: Annotated[str, typer.Option(
        "--listen", metavar="ADDRESS", help="Where clients connect: a socket, or HOST:PORT of loopback.")],
    block_size: Annotated[int, typer.Option(
        "--block-size", metavar="BYTES", help="512 for clients that write less than 4096 at a time.")] = 4096,
    fresh: Annotated[bool, typer.Option(
        "--fresh", help="The volume is new: all of it reads as zeros.")] = False,
    json: Json = False,
) -> None:
    """Record what NBD clients ask and are told, until SIGINT or SIGTERM; then `check history`.
    Exit code 0: the history is whole, 2: there is none, or not all of it."""
    if file.exists():
        raise errors.ConfigError(f"{file}: is there already")
    if not os.access(file.parent, os.W_OK):
        raise errors.ConfigError(f"{file}: no file can be made there")
    check_block_size(block_size)
    proxy = RecordingProxy(file, parse_address(server), parse_address(listen), block_size,
                           "zero" if fresh else "unknown")

    def ready() -> None:
        if json:
            print_json({"listen": listen, "file": str(file)})
        else:
            print(f"recording {server} to {file}; clients connect to {listen}", flush=True)

    with told({"file": str(file)}, as_json=json, usage=(errors.ConfigError,)):
        try:
            asyncio.run(proxy.run(ready))
        except OSError as error:
            raise errors.RepstoreError(
                f"{file}: not written to its end, so it is no history: {error.strerror or error}") from None
        if proxy.recorder is None:
            raise errors.NotFoundError("nobody opened the volume: no history was written")
    if json:
        print_json({"file": str(file), "verdict": "recorded", "operations": proxy.recorder.operations})


def parse_address(text: str) -> Address:
    """A unix socket or (host, port): an NBD URI, a path, HOST:PORT. Raises ConfigError.

    What begins with a word and a colon is never a path: that would be written with ./ before it."""
    host, colon, port = text.rpartition(":")
    if "/" not in text and colon and port.isascii() and port.isdigit():
        return host.strip("[]"), _port(text, int(port))
    scheme = SCHEME.fullmatch(text)
    if scheme is not None:
        return _parse_uri(text, scheme[1], scheme[2])
    if "/" in text:
        return Path(text)
    raise errors.ConfigError(f"{text!r}: must be an NBD URI, the path of a socket with a /, or HOST:PORT")


def _parse_uri(text: str, scheme: str, rest: str) -> Address:
    if scheme not in ("nbd", "nbd+unix") or not rest.startswith("//"):
        raise errors.ConfigError(f"{text!r}: must begin with nbd:// or nbd+unix://, be the path of a socket "
                                 "with a / in front of any colon, or HOST:PORT")
    try:
        uri = urllib.parse.urlsplit(text)
        host, port = uri.hostname, uri.port
    except ValueError as error:
        raise errors.ConfigError(f"{text!r}: is no URI: {error}") from None
    if scheme == "nbd":
        return host or "localhost", NBD_PORT if port is None else _port(text, port)
    sockets = urllib.parse.parse_qs(uri.query).get("socket")
    if not sockets:
        raise errors.ConfigError(f"{text}: names no socket")
    return Path(sockets[0])


def _port(text: str, port: int) -> int:
    if not 1 <= port <= PORT_MAX:
        raise errors.ConfigError(f"{text!r}: port {port}: must be 1 to {PORT_MAX}")
    return port


class RecordingProxy:
    """Passes bytes on between clients and a server, and records what they say."""

    def __init__(self, file: Path, server: Address, listen: Address, block_size: int,
                 initial: Literal["zero", "unknown"]) -> None:
        if isinstance(listen, tuple) and not _is_loopback(listen[0]):
            raise errors.ConfigError(f"listen on {listen[0]}: must be a loopback address")
        if listen == server:
            raise errors.ConfigError(f"listen on {listen}: must be another address than the server's")
        self.recorder: Recorder | None = None
        self._file = file
        self._server = server
        self._listen = listen
        self._block_size = block_size
        self._initial: Literal["zero", "unknown"] = initial
        self._opened: tuple[str, int] = ("", 0)
        self._numbers = itertools.count()
        self._connections: set[asyncio.Task[None]] = set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Until SIGINT or SIGTERM. Raises UnavailableError when the server is not there in the beginning,
        ConfigError when it cannot listen, OSError when the file cannot be written."""
        await self._find_server()
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
        loop.add_signal_handler(signal.SIGUSR1, self._crash, 1)
        loop.add_signal_handler(signal.SIGUSR2, self._crash, 0)
        try:
            server = await self._start()
        except OSError as error:
            raise errors.ConfigError(f"listen on {self._listen}: {error.strerror or error}") from error
        ready()
        await ended.wait()
        server.close()
        if isinstance(self._listen, Path):
            self._listen.unlink(missing_ok=True)
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self.recorder is not None:
            self.recorder.close()

    async def _find_server(self) -> None:
        """Whether anybody is there: later it may be away for a while, but a wrong address is told now."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, writer = await self._connection()
        except OSError as error:                       # of the time, too
            reason = error.strerror or str(error) or f"no connection in {CONNECT_TIMEOUT_S:.0f} s"
            raise errors.UnavailableError(f"the server {self._server} is not there: {reason}") from None
        writer.close()

    async def _start(self) -> asyncio.Server:
        if isinstance(self._listen, Path):
            return await asyncio.start_unix_server(self._accept, self._listen, limit=READ_BYTES)
        return await asyncio.start_server(self._accept, *self._listen, limit=READ_BYTES)

    def _crash(self, step: int) -> None:
        if self.recorder is not None:
            self.recorder.crash(self.recorder.incarnation + step)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, to its end."""
        observer = NbdObserver(next(self._numbers), self._open)
        writers = [writer]
        try:
            up_reader, up_writer = await self._connect()
            writers.append(up_writer)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(_pump(reader, up_writer, observer.from_client))
                pumps.create_task(_pump(up_reader, writer, observer.from_server))
        except* (OSError, _EndedError):
            pass                                   # the other side sees its end, too
        except* (UnrecordableError, errors.RepstoreError) as group:
            for error in group.exceptions:
                complain(f"a connection was ended, it cannot be recorded: {error}")
        finally:
            observer.closed()
            for each in writers:
                each.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the server, which may be away for a while: its clients come again."""
        try:
            return await self._connection()
        except OSError as error:
            complain(f"a client is turned away, the server {self._server} is not there: "
                     f"{error.strerror or error}")
            raise

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._server, Path):
            return await asyncio.open_unix_connection(self._server, limit=READ_BYTES)
        return await asyncio.open_connection(*self._server, limit=READ_BYTES)

    def _open(self, export: str, size_bytes: int) -> Recorder:
        """All connections of a recording are to one export."""
        if self.recorder is None:
            self.recorder = Recorder(
                self._file, size_bytes, block_size=self._block_size, initial=self._initial)
            self._opened = export, size_bytes
        if self._opened != (export, size_bytes):
            raise UnrecordableError(f"export {export!r} of {size_bytes} bytes, but the history is about "
                                    f"{self._opened[0]!r} of {self._opened[1]}")
        return self.recorder


class _EndedError(Exception):
    """One direction has ended: end the other."""


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
                observe: Callable[[bytes], None]) -> None:
    while data := await reader.read(READ_BYTES):
        observe(data)                              # before it is passed on
        writer.write(data)
        await writer.drain()
    raise _EndedError


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
