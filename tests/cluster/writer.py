"""A client under way while nodes die: writes, trims, reads and flushes, and remembers.

  1. It fails the test on any error but a lost connection to a node that was killed; then it
     attaches through another node and goes on.
  2. Every read is judged by the history at once.
"""
from __future__ import annotations

import random
import threading
import time

from tests.cluster.harness import WAIT_S, ClusterHarness
from tests.cluster.history import BLOCK_BYTES, History, Read, Write, content
from tests.cluster.nbd_client import Completion, ConnectionLostError, NbdClient
from tests.nbd import wire

DEPTH = 16
BLOCKS_MAX = 16            # of one request
HOT_BLOCKS = 64            # half of all writes go here, so that they meet each other
READ_SHARE, TRIM_SHARE, FLUSH_SHARE, FUA_SHARE = 0.1, 0.03, 0.02, 0.02


class Writer(threading.Thread):
    """Keeps requests under way until `finish`. What went wrong is in `failures`."""

    def __init__(self, cluster: ClusterHarness, history: History, name: str, seed: int) -> None:
        super().__init__(name="writer")
        self.failures: list[str] = []
        self.reconnects = 0
        self.longest_pause_s = 0.0
        self._cluster = cluster
        self._history = history
        self._node = name
        self._life = cluster.lives[name]
        self._random = random.Random(seed)
        self._under_way: dict[int, Write | Read | None] = {}
        self._finishing = threading.Event()
        self._progress = threading.Condition()
        self._done = 0
        self._completed_s = time.monotonic()
        self._client = cluster.connect(name)
        history.attached_again()

    @property
    def node(self) -> str:
        """The node it is attached through."""
        return self._node

    def run(self) -> None:
        """Until told to finish, and then until the last reply; or until something is wrong."""
        try:
            while not self.failures and not (self._finishing.is_set() and not self._under_way):
                self._turn()
            self._client.close()
        except Exception as error:
            self.failures.append(f"{type(error).__name__}: {error}")
        finally:
            with self._progress:
                self._progress.notify_all()

    def wait_for(self, completions: int) -> None:
        """Until so many more requests are finished."""
        with self._progress:
            wanted = self._done + completions
            moved = self._progress.wait_for(
                lambda: self._done >= wanted or self.failures or not self.is_alive(), WAIT_S)
        assert not self.failures, "\n".join([*self.failures[:5], self._cluster.describe()])
        assert moved, f"no {completions} completions within {WAIT_S:.0f} s\n{self._cluster.describe()}"

    def finish(self) -> None:
        """End, with every request answered and nothing wrong."""
        self._finishing.set()
        self.join(2 * WAIT_S)
        assert not self.failures, "\n".join([*self.failures[:5], self._cluster.describe()])
        assert not self.is_alive(), f"requests without an answer\n{self._cluster.describe()}"

    # ---------------------------------------------------------------------- inside the thread
    def _turn(self) -> None:
        try:
            while not self._finishing.is_set() and len(self._under_way) < DEPTH:
                self._send()
            completions = self._client.receive()
        except ConnectionLostError as error:
            self._go_elsewhere(error)
            return
        for completion in completions:
            self._complete(completion)
        now_s = time.monotonic()
        self.longest_pause_s = max(self.longest_pause_s, now_s - self._completed_s)
        self._completed_s = now_s
        with self._progress:
            self._done += len(completions)
            self._progress.notify_all()

    def _send(self) -> None:
        kind = self._random.random()
        count = self._random.choice((1, 1, 1, 2, self._random.randint(1, BLOCKS_MAX)))
        among = HOT_BLOCKS if self._random.random() < 0.5 else self._history.blocks
        first = self._random.randrange(among - count)
        offset, length = first * BLOCK_BYTES, count * BLOCK_BYTES
        item: Write | Read | None = None
        command, payload, flags = wire.FLUSH, b"", 0
        if kind < READ_SHARE:
            item, command = self._history.begin_read(first, count), wire.READ
        elif kind < READ_SHARE + TRIM_SHARE:
            item, command = self._history.begin_write(first, count, zeros=True), wire.TRIM
        elif kind < READ_SHARE + TRIM_SHARE + FLUSH_SHARE:
            offset = length = 0
        else:
            write = self._history.begin_write(first, count)
            item, command, payload = write, wire.WRITE, content(write.value, first, count)
            flags = wire.FUA if self._random.random() < FUA_SHARE else 0
        # entered before it is sent: a request that fails on its way may have arrived
        self._under_way[self._client.next_cookie] = item
        self._client.send(command, offset, length, payload, flags=flags)

    def _complete(self, completion: Completion) -> None:
        item = self._under_way.pop(completion.cookie)
        if completion.error:
            self.failures.append(f"request {item}: error {completion.error}")
        elif isinstance(item, Read):
            self.failures += self._history.end_read(item, completion.data)
        elif isinstance(item, Write):
            self._history.acknowledge(item)

    def _go_elsewhere(self, lost: ConnectionLostError) -> None:
        """Our node was killed: attach through another one as soon as there is one."""
        if self._life == self._cluster.lives[self._node]:
            self.failures.append(f"{self._node} runs, but the connection was lost: {lost}")
            return
        self._history.lose_connection([item for item in self._under_way.values() if isinstance(item, Write)])
        self._under_way.clear()
        self._client.close()
        self._client, self._node, self._life = self._attach()
        self._history.attached_again()
        self.reconnects += 1

    def _attach(self) -> tuple[NbdClient, str, int]:
        deadline_s = time.monotonic() + WAIT_S
        pause = threading.Event()
        while time.monotonic() < deadline_s:
            for name in self._random.sample(self._cluster.names, len(self._cluster.names)):
                life = self._cluster.lives[name]
                try:
                    return self._cluster.connect(name), name, life
                except ConnectionLostError:
                    pause.wait(0.02)         # not up: the next one, or this one later
        raise TimeoutError(f"no node accepted an attach within {WAIT_S:.0f} s")
