"""Stands on every connection between nodes and cuts it: both ways or one way, from outside.

Nodes talk over unix sockets, which no network namespace separates and no packet filter sees; so
the cut is made by a proxy at the address that a node's record names, in front of the socket it
listens on. It needs no privileges and leaves nothing behind in the kernel.

  1. Who dialled is told by the kernel (SO_PEERCRED), never by what is sent.
  2. A blocked direction loses nothing and tells nothing: bytes stay where they are, as those of
     a TCP connection whose packets are dropped, and arrive late, in order, when it is opened.
     The sender's queue fills meanwhile. An end of file does not pass either.
  3. `cut` ends the connections between two nodes; what was on its way is lost.
  4. Two threads a connection, blocking; `close` ends them all.
"""
from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

RECEIVE_BYTES = 1 << 18
CREDENTIALS = struct.Struct("iII")         # pid, uid, gid
BEHIND = ".in"                             # where a node listens, behind the address of its record


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """One connection, from the node that dialled to the one that listens."""

    dialler: str
    listener: str
    outer: socket.socket
    inner: socket.socket

    def end(self) -> None:
        """Both ends see it gone; whoever waits in a call returns from it."""
        for each in (self.outer, self.inner):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class CuttingProxy:
    """The proxies of a cluster. `addresses` are those of the nodes' records, by name;
    `name_of` tells which node a process is, None if it is none."""

    def __init__(self, addresses: Mapping[str, str], name_of: Callable[[int], str | None]) -> None:
        self.carried_bytes = 0
        self._name_of = name_of
        self._blocked: set[tuple[str, str]] = set()
        self._connections: set[Connection] = set()
        self._changed = threading.Condition()
        self._closing = False
        self._threads: list[threading.Thread] = []
        self._listeners: list[socket.socket] = []
        for name, address in addresses.items():
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(address)
            listener.listen(128)
            self._listeners.append(listener)
            self._begin(self._accept, listener, name, address + BEHIND)

    def block(self, source: str, target: str) -> None:
        """Nothing more arrives at `target` that `source` sends."""
        with self._changed:
            self._blocked.add((source, target))

    def open(self, source: str, target: str) -> None:
        """What was held back arrives, and what follows."""
        with self._changed:
            self._blocked.discard((source, target))
            self._changed.notify_all()

    def cut(self, one: str, other: str) -> None:
        """End every connection between two nodes."""
        with self._changed:
            found = [each for each in self._connections if {each.dialler, each.listener} == {one, other}]
        for connection in found:
            connection.end()

    def close(self) -> None:
        """End all connections and threads."""
        with self._changed:
            self._closing = True
            self._blocked.clear()
            self._changed.notify_all()
            connections = list(self._connections)
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
        for connection in connections:
            connection.end()
        for thread in list(self._threads):
            thread.join()
        for listener in self._listeners:
            listener.close()

    # ------------------------------------------------------------------------- its threads
    def _begin(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()

    def _accept(self, listener: socket.socket, name: str, address: str) -> None:
        while True:
            try:
                outer, _ = listener.accept()
            except OSError:
                return
            pid, _, _ = CREDENTIALS.unpack(
                outer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
            dialler = self._name_of(pid)
            inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                if dialler is None:
                    raise ConnectionRefusedError(f"process {pid} is no node")
                inner.connect(address)
            except OSError:
                outer.close()
                inner.close()
                continue
            connection = Connection(dialler, name, outer, inner)
            with self._changed:
                self._connections.add(connection)
                if self._closing:
                    connection.end()
            self._begin(self._carry, connection)

    def _carry(self, connection: Connection) -> None:
        """Both directions of a connection, until either has ended."""
        back = threading.Thread(target=self._pump, args=(connection, False), daemon=True)
        back.start()
        self._pump(connection, True)
        back.join()
        with self._changed:
            self._connections.discard(connection)
        connection.outer.close()
        connection.inner.close()

    def _pump(self, connection: Connection, forward: bool) -> None:
        names = (connection.dialler, connection.listener)
        ends = (connection.outer, connection.inner)
        if not forward:
            names, ends = names[::-1], ends[::-1]
        with contextlib.suppress(OSError):
            while True:
                data = ends[0].recv(RECEIVE_BYTES)
                with self._changed:
                    self._changed.wait_for(lambda: names not in self._blocked)
                if not data:
                    break
                ends[1].sendall(data)
                self.carried_bytes += len(data)
        connection.end()
