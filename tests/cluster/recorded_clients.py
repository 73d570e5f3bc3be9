"""Clients of one volume whose every operation is recorded, and who go on whatever happens.

  1. All are attached through the same node, the frontend, each by a connection of its own. When
     one finds that node dead, deaf or refused it moves the frontend; the others follow. The last
     client only reads, and stays where it is as long as it is answered: so it asks a primary
     that was paused or isolated, and believes that it still leads. While no answer comes it asks
     more: what is read first when a primary wakes up was asked when another one led already.
  2. Every request is begun in the recorder before it is sent. What was under way on a connection
     that is gone has no effect after a flush was answered through *another* node: that one has
     a later session, and an earlier session is refused. Until then it may still happen.
  3. An error must be one that the faults in force may cause; any other ends the run as failed.
"""
from __future__ import annotations

import errno
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

from repstore.check.recorder import Operation, Recorder
from tests.cluster.harness import WAIT_S, ClusterHarness
from tests.cluster.history import BLOCK_BYTES, content
from tests.cluster.nbd_client import Completion, ConnectionLostError, NbdClient, RefusedError
from tests.nbd import wire

CONNECTIONS = 3
DEPTH = 4                  # requests under way a connection
DEPTH_MAX = 32             # of the reader, when none is answered
BLOCKS_MAX = 8             # of one request
HOT_BLOCKS = 48            # half of all requests go here, so that they meet each other
PATIENCE_S = 2.0           # without an answer for so long a client may go elsewhere
READER_PATIENCE_S = 0.5    # and the reader asks more
READ_SHARE, TRIM_SHARE, ZERO_SHARE, FLUSH_SHARE, FUA_SHARE = 0.4, 0.03, 0.02, 0.03, 0.05


class Frontend:
    """Which node the clients are to be attached through. Thread-safe."""

    def __init__(self, names: tuple[str, ...], seed: int) -> None:
        self.name = names[0]
        self._names = names
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def move(self, away_from: str) -> None:
        """Another node than this one, unless somebody has chosen another already."""
        with self._lock:
            if self.name == away_from:
                self.name = self._random.choice([name for name in self._names if name != away_from])

    def go(self, name: str) -> None:
        """To this node."""
        with self._lock:
            self.name = name


class RecordedClient(threading.Thread):
    """One client. What went wrong is in `failures`."""

    def __init__(self, cluster: ClusterHarness, recorder: Recorder, frontend: Frontend, number: int,
                 seed: int, may_fail: Callable[[int], bool]) -> None:
        super().__init__(name=f"client {number}")
        self.failures: list[str] = []
        self.answered = 0                              # without an error
        self.served = 0                                # of what it is there for: writes, or reads
        self.errors: Counter[str] = Counter()
        self.reconnects = 0
        self.longest_pause_s = 0.0
        self.reads_only = number == CONNECTIONS - 1
        self._depth = DEPTH
        self._cluster = cluster
        self._recorder = recorder
        self._frontend = frontend
        self._number = number
        self._random = random.Random(seed)
        self._may_fail = may_fail
        self._values = itertools.count(number + 1, CONNECTIONS)
        self._blocks = recorder.size_bytes // BLOCK_BYTES
        self._client: NbdClient | None = None
        self.node = ""                                 # it is, or was, attached through
        self._under_way: dict[int, Operation] = {}
        self._proof = 0                                # cookie of the flush that rule 2 waits for
        self._orphans: list[tuple[str, Operation]] = []
        self._finishing = threading.Event()
        self._answered_s = time.monotonic()

    def run(self) -> None:
        """Until `finish`, and then until the last answer; or until something is wrong."""
        try:
            while not self.failures and not (self._finishing.is_set() and not self._under_way):
                self._turn()
        except Exception as error:
            self.failures.append(f"{self.name}: {type(error).__name__}: {error}")
        finally:
            if self._client is not None:
                self._client.close()

    def finish_soon(self) -> None:
        """Ask nothing more, and end when all is answered or the nodes are gone."""
        self._finishing.set()

    def finish(self) -> None:
        """End with every request answered."""
        self.finish_soon()
        self.join(WAIT_S)
        if self.is_alive():
            self.failures.append(f"{self.name}: requests without an answer {WAIT_S:.0f} s after healing")

    # ---------------------------------------------------------------------- inside the thread
    def _turn(self) -> None:
        if self._client is None or not (self.reads_only or self.node == self._frontend.name):
            self._attach()
            return
        try:
            while not self._finishing.is_set() and len(self._under_way) < self._depth:
                self._send(self._client)
            refused = [self._complete(completion) for completion in self._client.receive()]
            self._depth = DEPTH
            if any(refused):
                self._leave()                          # taken over: this connection is of no more use
        except ConnectionLostError:
            self._leave()
        except TimeoutError:
            if self._random.random() < (0.03 if self.reads_only else 0.5):  # else it is patient once more
                self._frontend.move(self.node)
                self._leave()
            elif self.reads_only:
                self._depth = min(self._depth + 1, DEPTH_MAX)

    def _attach(self) -> None:
        self._leave()
        name = self._frontend.name
        try:
            self._client = NbdClient(self._cluster.nbd_path(name), "demo", PATIENCE_S)
        except (ConnectionLostError, RefusedError, TimeoutError):
            self._frontend.move(name)
            self._finishing.wait(0.02)
            return
        if self.reads_only:
            self._client.wait_at_most(READER_PATIENCE_S)
        self.node = name
        self.reconnects += 1
        operation = self._recorder.begin(self._number, "flush")
        self._proof = self._client.next_cookie
        self._under_way[self._proof] = operation
        try:
            self._client.send(wire.FLUSH)
        except (ConnectionLostError, TimeoutError):
            self._leave()

    def _leave(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        self._orphans += [(self.node, operation) for operation in self._under_way.values()]
        self._under_way.clear()

    def _send(self, client: NbdClient) -> None:
        kind = FLUSH_SHARE if self.reads_only else self._random.random()
        count = self._random.choice((1, 1, 1, 2, self._random.randint(1, BLOCKS_MAX)))
        first = self._random.randrange(self._random.choice((HOT_BLOCKS, self._blocks)) - count)
        offset, length = first * BLOCK_BYTES, count * BLOCK_BYTES
        flags = wire.FUA if self._random.random() < FUA_SHARE else 0
        begin, payload, fua = self._recorder.begin, b"", bool(flags)
        if kind < FLUSH_SHARE:
            operation, command, offset, length, flags = begin(self._number, "flush"), wire.FLUSH, 0, 0, 0
        elif (kind := kind - FLUSH_SHARE) < READ_SHARE:
            operation, command, flags = begin(self._number, "read", offset, length), wire.READ, 0
        elif (kind := kind - READ_SHARE) < TRIM_SHARE + ZERO_SHARE:
            operation = begin(self._number, "zero", offset, length, fua=fua)
            command = wire.TRIM if kind < TRIM_SHARE else wire.WRITE_ZEROES
        else:
            payload, command = content(next(self._values), first, count), wire.WRITE
            operation = begin(self._number, "write", offset, length, fua=fua, data=payload)
        # entered before it is sent: a request that fails on its way may have arrived
        self._under_way[client.next_cookie] = operation
        client.send(command, offset, length, payload, flags=flags)

    def _complete(self, completion: Completion) -> bool:
        """Note an answer; True when it says that this connection's session is over."""
        operation = self._under_way.pop(completion.cookie)
        if completion.error:
            operation.failed(completion.error)
            return self._failed(operation, completion.error)
        operation.done(completion.data if operation.kind == "read" else None)
        now_s = time.monotonic()
        self.longest_pause_s = max(self.longest_pause_s, now_s - self._answered_s)
        self._answered_s = now_s
        self.answered += 1
        self.served += operation.kind == ("read" if self.reads_only else "write")
        if completion.cookie == self._proof:
            over = [each for node, each in self._orphans if node != self.node]
            self._orphans = [(node, each) for node, each in self._orphans if node == self.node]
            for each in over:
                each.over()
        return False

    def _failed(self, operation: Operation, error: int) -> bool:
        name = errno.errorcode.get(error, str(error))
        self.errors[name] += 1
        if (error == errno.ENOSPC and operation.kind == "read") or not self._may_fail(error):
            self.failures.append(f"{self.name} through {self.node}: {operation.kind} of "
                                 f"{operation.length} at {operation.offset}: {name}")
        return error != errno.ENOSPC
