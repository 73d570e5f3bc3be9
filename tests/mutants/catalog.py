"""The planted faults: what is broken, where, and which checks should notice.

A mutant replaces one place of the product, named by its exact text there:
  whole lines   `original` is one or more statements, with the indentation they have among themselves
  in a line     `original` is an expression inside one line
It must be found exactly once, so a mutant whose place has changed is noticed, not skipped.

`checks` are pytest arguments, the fastest first: the runner stops at the first that fails.
`seeds` says whether the simulator can reach the fault: then random seeds are tried as well.
"""
from __future__ import annotations

from dataclasses import dataclass

FAST = "src/repstore/_fast/"
POLICY = "src/repstore/replication/"
STORE = "src/repstore/store/"
NBD = "bindings/nbd/"

CRASH = "tests/sim/test_crash_states.py"
CRASH_LONG = CRASH + "::test_every_crash_with_the_cleaner_at_work_leaves_a_legal_state"
CLUSTER = "tests/sim/test_cluster.py"
RECOVERY = "tests/store/test_recovery.py"
TRANSCRIPTS = "tests/replication/test_transcripts.py"
TRANSMISSION = "tests/nbd/test_transmission.py"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted fault; `number` is its value of the switch."""

    number: int
    room: str
    name: str
    file: str
    original: str
    mutated: str
    checks: tuple[str, ...]
    rule: str = ""             # of the protocol, if it breaks one
    seeds: bool = True


MUTANTS = (
    # -------------------------------------------------------------------------- checksums
    Mutant(1, "checksum", "skip the CRC check on read", FAST + "service.pyx",
           "crcs[i] != request.extents[first + i].crc", "False", (RECOVERY, CRASH)),
    Mutant(2, "checksum", "skip the CRC check of a batch's payload", FAST + "batch.pyx",
           "crcs[i] != batch_crc(block, i)[0]", "False", ("tests/fast/test_batch.py", CRASH)),
    Mutant(3, "checksum", "take a replica's blocks unchecked", FAST + "replica.pyx",
           "found[i] != crcs[i]", "False", (CLUSTER,)),
    # ------------------------------------------------------------- batches, log, flushes
    Mutant(10, "batch", "acknowledge batch k+1 before k is written", FAST + "log.pyx",
           "batch.state != BATCH_WRITTEN",
           "batch.state != BATCH_WRITTEN and (log.chain_count < 2 or "
           "log.chain[(log.chain_head + 1) % BATCHES].state != BATCH_WRITTEN)", (CRASH,)),
    Mutant(11, "batch", "retry a failed fsync", FAST + "engine.pyx",
           "if result < 0:\n    store_fail(engine, -result)\n    return\n"
           "engine.store.log.flushed_sequence = engine.store.log.flushing_sequence",
           "if result < 0:\n    engine.store.log.flush_wanted = True\n    return\n"
           "engine.store.log.flushed_sequence = engine.store.log.flushing_sequence",
           ("tests/sim/test_simulated.py",)),
    Mutant(12, "acknowledgement", "answer a flush when all is written", FAST + "service.pyx",
           "before = durable_on_all(volume)", "before = acknowledged_by_all(volume)", (CRASH,)),
    Mutant(13, "batch", "let a flush cover what was logged behind it", FAST + "engine.pyx",
           "engine.volumes[i].flushing_lsn = engine.volumes[i].local_lsn",
           "engine.volumes[i].flushing_lsn = engine.volumes[i].last_lsn", (CRASH,)),
    Mutant(20, "map", "reuse a segment one flush early", FAST + "checkpoint.pyx",
           "checkpoint.step > CHECKPOINT_FLUSH_B", "checkpoint.step > CHECKPOINT_SUPER_A", (CRASH,)),
    Mutant(30, "recovery", "cut the log although a later batch proves it was flushed", STORE + "recovery.py",
           '(later["flushed_sequence"] >= k).any()', "False", (RECOVERY,)),
    Mutant(40, "cleaner", "move a block although it was overwritten meanwhile", FAST + "volume.pyx",
           "extent.location == record.source + i", "True", (CRASH,)),
    # ------------------------------------------------------------------ acknowledgement
    Mutant(50, "acknowledgement", "commit before the members have it", FAST + "service.pyx",
           "volume_commit(engine, volume, acknowledged_by_all(volume))",
           "volume_commit(engine, volume, volume.local_lsn)", (CLUSTER,)),
    Mutant(60, "membership", "acknowledge before the eject is durable", POLICY + "leadership.py",
           "actions.append(Swap(proposal, here.revision))",
           "actions += [Swap(proposal, here.revision), SetMembers(tuple("
           "node for node in proposal.in_sync_nodes() if node != here.me.node))]",
           (TRANSCRIPTS,), rule="R-eject"),
    Mutant(61, "membership", "a joiner does not count until it has joined", FAST + "quorum.pxd",
           "member.state == MEMBER_IN_SYNC or member.state == MEMBER_JOINING",
           "member.state == MEMBER_IN_SYNC", (CLUSTER,), rule="R-join"),
    Mutant(62, "membership", "let a tainted member lead", POLICY + "promotion.py",
           "clean and mine.tainted", "False", (TRANSCRIPTS,), rule="R-taint"),
    Mutant(63, "membership", "obey a primary of an epoch that is sealed", FAST + "replica.pyx",
           "header.epoch < volume.sealed_epoch", "False", (CLUSTER,), rule="R-seal"),
    Mutant(64, "acknowledgement", "count an acknowledgement of an old session", FAST + "primary.pyx",
           "header.chain != member.learn_serial", "False", (CLUSTER,), rule="R-session"),
    Mutant(90, "nbd", "forget FUA", NBD + "transmission.pyx",
           "RS_FUA if flags & NBD_CMD_FLAG_FUA else 0", "0", (TRANSMISSION,), seeds=False),
)
