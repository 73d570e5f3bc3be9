"""Is what a crash leaves what was promised? Every state of a recording, reopened and judged.

    recording = Recording(image)
    store = MyStore(RecordingDevice(recording))
    ledger = Ledger(recording, state=store.content())
    number = ledger.asked({"a": 1})          # the content once this is there
    store.put("a", 1)
    ledger.answered(number)
    flush = ledger.asked()                   # changes nothing, makes durable what was answered
    store.flush()
    ledger.answered(flush)

    @contextmanager
    def reopen(recording, boot):
        store = MyStore(RecordingDevice(recording))
        yield store.content()
        store.put("z", 26)                   # it must go on: what is raised here is a fault too

    report = check_crashes(ledger, reopen, second_crashes=8)
    assert report.faults == (), report

A fault tells what is wrong, and keeps the crash: `fault.image()` is the disk, `fault.life()` what
`reopen` is given to see it again. No more than FAULTS_MAX are looked for.

What is found must be the content after some prefix of what was asked, and
  D1 after a power cut that prefix holds everything that a flush or durable write was answered for
  D2 after a kill it holds everything that was answered
  D3 it is such a prefix at all: nothing newer without what came before it, nothing invented
  OPEN the store opens, and goes on, without an error
  SEEN what a life has found when it was open, no crash of that life takes away; but a power cut
       may take what only a kill had spared
"""
from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from random import Random

from repstore import errors
from repstore.sim.crash_states import SAMPLES, SUBSET_LIMIT, CrashState, crash_states
from repstore.sim.difference import difference, distance, shortened
from repstore.sim.recording import Note, Recording

FAULTS_MAX = 20       # a report of more helps nobody
ERROR_SHOWN = 300     # characters of what a reopening raised

# Opens the store in a recording, after so many power cuts; gives its content, then goes on.
Reopen = Callable[[Recording, int], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Asked:
    """An operation was handed to the store under test."""
    operation: int


@dataclass(frozen=True, slots=True)
class Answered:
    """An operation was answered, without an error."""
    operation: int


@dataclass(frozen=True, slots=True)
class _Operation:
    first: int           # states there are before it
    end: int             # states there are with it
    durable: bool        # its answer promises that it is durable
    flushes: bool        # its answer promises that what was answered before is


class Ledger:
    """What a workload asked of a store and was promised, told beside its disk's recording.

    Contents are anything that compares by `==`, and must not change afterwards. Operations take
    effect in the order they are asked, however many are under way.
    """

    def __init__(self, recording: Recording, state: object) -> None:
        """`state` is the content as the recording begins; all of it is durable."""
        self.recording = recording
        self.states: list[object] = [state]
        self._operations: list[_Operation] = []

    def asked(self, *states: object, durable: bool = False) -> int:
        """An operation begins; gives its number.

        `states` are the contents it leads through, its whole effect last: a write that is not
        atomic has several. Without any it is a flush. `durable`: its answer means it is flushed.
        """
        number, first = len(self._operations), len(self.states)
        self.states += states
        self._operations.append(_Operation(first, len(self.states), durable, not states))
        self.recording.note(Asked(number))
        return number

    def answered(self, operation: int) -> None:
        """That operation was answered with success."""
        if not 0 <= operation < len(self._operations):
            raise errors.ConfigError(f"operation {operation} was never asked")
        self.recording.note(Answered(operation))

    def promised(self, position: int, power_lost: bool) -> int:
        """Index of the oldest state that may be found after a crash there (D1, D2)."""
        answered = durable = 0
        covered: dict[int, int] = {}
        for entry in self.recording.entries[:position]:
            match entry:
                case Note(Asked(number)):
                    covered[number] = answered
                case Note(Answered(number)):
                    operation = self._operations[number]
                    if operation.flushes:
                        durable = max(durable, covered[number])
                        continue
                    answered = max(answered, operation.end - 1)
                    if operation.durable:
                        durable = max(durable, operation.end - 1)
        return durable if power_lost else answered

    def fault(self, found: object, promised: int, rule: str) -> str:
        """What is wrong with a content, or an empty string."""
        newest, last = self.newest(found), len(self.states) - 1
        if newest is None:
            # of those that may be there; of equals the newest
            nearest = min(range(last, promised - 1, -1),
                          key=lambda index: distance(found, self.states[index]))
            return ("this is not the content after any prefix of the operations; the nearest is that after "
                    f"{nearest} of {last} effects: {difference(found, self.states[nearest])} (D3)")
        if newest < promised:
            return (f"{newest} of {last} effects are there, {promised} were promised: "
                    f"{difference(found, self.states[promised])} ({rule})")
        return ""

    def newest(self, found: object) -> int | None:
        """The last index of this content, or None."""
        return next((index for index in range(len(self.states) - 1, -1, -1)
                     if self.states[index] == found), None)


class CrashFault(str):
    """What is wrong with what a crash left, in words; and that crash, to be looked at again."""

    def __new__(cls, message: str, recording: Recording, state: CrashState,
                second: CrashState | None = None) -> CrashFault:
        return super().__new__(cls, message)

    def __init__(self, message: str, recording: Recording, state: CrashState,
                 second: CrashState | None = None) -> None:
        """`recording` is that of the last crash: of the workload, or of the life that `second` ended."""
        self.recording = recording
        self.state = state
        self.second = second

    @property
    def boot(self) -> int:
        """Power cuts until then: what `reopen` is given beside the recording."""
        return self.state.power_lost + (self.second is not None and self.second.power_lost)

    def image(self) -> bytearray:
        """The disk as the last crash left it."""
        return (self.second or self.state).image(self.recording)

    def life(self) -> Recording:
        """The same as the beginning of a recording, for `reopen`; a new one every time."""
        return (self.second or self.state).next_life(self.recording)

    def __reduce__(self) -> tuple[object, ...]:
        return CrashFault, (str(self), self.recording, self.state, self.second)


@dataclass(frozen=True, slots=True)
class CrashReport:
    """How hard it was looked, and what was found."""
    states: int
    second_states: int
    faults: tuple[CrashFault, ...]        # FAULTS_MAX at most
    seen: int                             # faults, when it stopped looking

    def __str__(self) -> str:
        crashes = f"{self.states} crash states, {self.second_states} crashes while reopening"
        shown = f"{len(self.faults)} faults"
        if len(self.faults) >= FAULTS_MAX:
            shown += f" shown of {self.seen} or more: it stops at {FAULTS_MAX}"
        return "\n".join([f"{crashes}: {shown}", *self.faults])


def check_crashes(ledger: Ledger, reopen: Reopen, *, every: int = 1, second_crashes: int = 0,
                  subset_limit: int = SUBSET_LIMIT, samples: int = SAMPLES, seed: int = 0) -> CrashReport:
    """Reopen every n-th state of the ledger's recording and judge it; stops at FAULTS_MAX faults.

    `second_crashes`: of each so many states, drawn by seed, that a crash leaves while it is
    reopened. Whatever `reopen` raises of class Exception is a fault. ConfigError: bad arguments.
    """
    if every < 1 or second_crashes < 0:
        raise errors.ConfigError(f"every {every}: 1 or more; second_crashes {second_crashes}: 0 or more")
    random, judge = Random(seed), _Judge(ledger, reopen)
    states = crash_states(ledger.recording, subset_limit, samples=samples, seed=seed)
    for state in islice(states, 0, None, every):
        judge.first(state)
        if second_crashes and judge.life is not None:
            second = list(crash_states(judge.life, subset_limit, samples=samples, seed=seed))
            for following in random.sample(second, min(second_crashes, len(second))):
                judge.second(state, following)
        if len(judge.faults) >= FAULTS_MAX:
            break
    return CrashReport(judge.states, judge.second_states, tuple(judge.faults[:FAULTS_MAX]), len(judge.faults))


class _Judge:
    """Opens one state after the other, and keeps what is wrong."""

    def __init__(self, ledger: Ledger, reopen: Reopen) -> None:
        self.states = 0
        self.second_states = 0
        self.faults: list[CrashFault] = []
        self.life: Recording | None = None       # of the last first crash: until it was open
        self._seen = 0                           # what that life found
        self._ledger = ledger
        self._reopen = reopen

    def first(self, state: CrashState) -> None:
        self.states += 1
        ledger, life = self._ledger, state.next_life(self._ledger.recording)
        found, fault, opened = self._open(life, int(state.power_lost))
        rule = "D1" if state.power_lost else "D2"
        fault = fault or ledger.fault(found, ledger.promised(state.position, state.power_lost), rule)
        self.life = None
        if fault:
            recording = ledger.recording
            self.faults.append(CrashFault(f"{state.told(recording)}: {fault}", recording, state))
        else:
            self._seen = ledger.newest(found) or 0
            self.life = Recording(life.image, life.entries[:opened], life.past)

    def second(self, state: CrashState, following: CrashState) -> None:
        self.second_states += 1
        ledger, life = self._ledger, self.life
        if life is None:
            raise errors.ConfigError("no life that a second crash could end")
        power_lost = state.power_lost or following.power_lost
        promised, rule = ledger.promised(state.position, power_lost), "D1" if power_lost else "D2"
        if following.position == len(life.entries) and (state.power_lost or not following.power_lost):
            promised, rule = self._seen, "SEEN"
        boot = state.power_lost + following.power_lost
        found, fault, _ = self._open(following.next_life(life), boot)
        fault = fault or ledger.fault(found, promised, rule)
        if fault:
            told = f"{state.told(ledger.recording)}; then, while it was reopened, {following.told(life)}"
            self.faults.append(CrashFault(f"{told}: {fault}", life, state, following))

    def _open(self, life: Recording, boot: int) -> tuple[object, str, int]:
        """The content, what went wrong, and how many entries there were when it was open."""
        found: object = None
        opened, doing = 0, "opening"
        try:
            with self._reopen(life, boot) as found:
                opened, doing = len(life.entries), "going on"
        except Exception as error:
            said = shortened(str(error), ERROR_SHOWN)
            return found, f"{doing}: {type(error).__name__}: {said} (OPEN)", opened
        return found, "", opened
