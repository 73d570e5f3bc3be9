"""The control thread of a node: it may stand in the middle of a decision while the world goes on.

  T1 One decision at a time, in the order they were asked for, as the loop of a process makes them.
  T2 What a decision waits for stands in `wait`: engines turn, time passes, then it goes on there.
  T3 It runs only while the simulation waits for it. A decision that may wait has a thread of the
     system, for its stack; which of the two runs is never left to the system.
  T4 When the process ends, a decision that stands ends where it stands.
"""
from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from repstore.sim.clock import Action, VirtualClock


class Ended(BaseException):
    """The process is gone. No error that control code could handle: it is not there any more."""


class StandingCall:
    """A call that can be left in its middle, and gone on with."""

    def __init__(self, action: Action) -> None:
        self.is_done = False
        self.stands = True
        self._error: BaseException | None = None
        self._is_over = False
        self._go_on = threading.Semaphore(0)
        self._left = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(action,), daemon=True)
        self._thread.start()

    def _run(self, action: Action) -> None:
        self._go_on.acquire()
        try:
            if not self._is_over:
                action()
        except Ended:
            pass
        except BaseException as error:        # whoever waits for it is told
            self._error = error
        self.is_done = True
        self._left.release()

    def go_on(self) -> None:
        """Until it stands again, or is done; what it raises comes out here."""
        self.stands = False
        self._go_on.release()
        self._left.acquire()
        if self.is_done:
            self._thread.join()
            if self._error is not None:
                raise self._error

    def stand(self) -> None:
        """In the call: be left here."""
        self.stands = True
        self._left.release()
        self._go_on.acquire()
        if self._is_over:
            raise Ended

    def end(self) -> None:
        """Have it end where it stands."""
        self._is_over = True
        self.go_on()


class ControlThread:
    """Makes the decisions of one process. `is_put_off` keeps an action that cannot be done just now
    for later, `may_wait` says whether what is decided now could take time, and `before_wait` is
    done first when it does."""

    def __init__(self, clock: VirtualClock, is_put_off: Callable[[Action], bool],
                 may_wait: Callable[[], bool], before_wait: Action) -> None:
        self._clock = clock
        self._is_put_off = is_put_off
        self._may_wait = may_wait
        self._before_wait = before_wait
        self._asked: deque[Action] = deque()
        self._call: StandingCall | None = None

    def decide(self, decision: Action) -> None:
        """Make this decision, after those before it (T1)."""
        self._asked.append(decision)
        if self._call is None:
            self._make_decisions()

    @property
    def can_wait(self) -> bool:
        """Whether the one who asks is a decision that may wait."""
        return self._call is not None

    def wait(self, duration_ns: int) -> None:
        """In a decision that may wait: stand here for so long (T2)."""
        assert self._call is not None, "who asks has no stack to leave"
        self._before_wait()
        self._clock.after(duration_ns, self._go_on)
        self._call.stand()

    def end(self) -> None:
        """The process is no more (T4)."""
        self._asked.clear()
        call, self._call = self._call, None
        if call is not None and call.stands:
            call.end()

    def _make_decisions(self) -> None:
        while self._asked and self._call is None:
            decision = self._asked.popleft()
            if self._may_wait():
                self._call = StandingCall(decision)
                self._go_on()
            else:
                decision()

    def _go_on(self) -> None:
        call = self._call
        if call is None or self._is_put_off(self._go_on):
            return
        call.go_on()
        if call.is_done:
            self._call = None
            self._make_decisions()
