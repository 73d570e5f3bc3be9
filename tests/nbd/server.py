"""The fake engine behind a real unix socket: one thread, select, no more than a loop must be."""
import selectors
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.nbd._fake_engine import FakeEngine

CHUNK_BYTES = 1 << 18


class Server:
    """Serves an engine on a socket path while the `with` block lasts."""

    def __init__(self, engine: FakeEngine, path: Path) -> None:
        self.engine = engine
        self.path = path
        self.uri = f"nbd+unix:///demo?socket={path}"
        self.links: dict[socket.socket, int] = {}
        self.unsent: dict[socket.socket, bytearray] = {}
        self.selector = selectors.DefaultSelector()
        self.wake_reader, self.wake_writer = socket.socketpair()
        self.listener = socket.socket(socket.AF_UNIX)
        self.thread = threading.Thread(target=self.run)

    def __enter__(self) -> Self:
        self.listener.bind(str(self.path))
        self.listener.listen(16)
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.selector.register(self.wake_reader, selectors.EVENT_READ)
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.wake_writer.close()
        self.thread.join()
        for connection in list(self.links):
            self.drop(connection)
        for each in (self.listener, self.wake_reader, self.selector):
            each.close()

    def run(self) -> None:
        while True:
            for key, _ in self.selector.select():
                assert isinstance(key.fileobj, socket.socket)
                if key.fileobj is self.wake_reader:
                    return
                if key.fileobj is self.listener:
                    self.accept()
                elif key.fileobj in self.links:
                    self.serve(key.fileobj)
            self.engine.pump()
            for connection in list(self.links):
                self.send(connection)

    def accept(self) -> None:
        connection, _ = self.listener.accept()
        connection.setblocking(False)
        self.links[connection] = self.engine.connect()
        self.unsent[connection] = bytearray()
        self.selector.register(connection, selectors.EVENT_READ)

    def serve(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if data:
            self.engine.feed(self.links[connection], data)
        else:
            self.drop(connection)

    def send(self, connection: socket.socket) -> None:
        link = self.links[connection]
        unsent = self.unsent[connection]
        unsent += self.engine.output(link)
        try:
            while unsent:
                del unsent[:connection.send(memoryview(bytes(unsent[:CHUNK_BYTES])))]
        except BlockingIOError:
            pass
        except ConnectionError:
            self.drop(connection)
            return
        if self.engine.links[link].closed and not unsent:
            self.drop(connection)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if unsent else 0)
        self.selector.modify(connection, events)

    def drop(self, connection: socket.socket) -> None:
        link = self.links.pop(connection)
        del self.unsent[connection]
        self.selector.unregister(connection)
        connection.close()
        if self.engine.links[link].alive:
            self.engine.disconnect(link)
        self.engine.pump()
