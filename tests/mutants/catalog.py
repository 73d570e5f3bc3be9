"""The planted faults: what is broken, where, and which checks should notice.

A mutant replaces one place of the product, named by its exact text there:
  whole lines   `original` is one or more statements, with the indentation they have among themselves
  in a line     `original` is an expression inside one line
It must be found exactly once, so a mutant whose place has changed is noticed, not skipped.

`checks` are pytest arguments, the fastest first: the runner stops at the first that fails.
`seeds` says whether the simulator can reach the fault: then random seeds are tried as well.
"""
# the texts stand here as they stand in the product
# ruff: noqa: E501
from __future__ import annotations

from dataclasses import dataclass

FAST = "src/repstore/_fast/"
POLICY = "src/repstore/replication/"
STORE = "src/repstore/store/"
NBD = "bindings/nbd/"

CRASH = "tests/sim/test_crash_states.py"
CRASH_SHORT = CRASH + "::test_every_crash_of_a_short_workload_leaves_a_legal_state"
CRASH_CLEANER = CRASH + "::test_crashes_with_the_cleaner_at_work_leave_legal_states"
CRASH_FLUSHES = CRASH + "::test_a_flush_promises_nothing_of_the_writes_that_end_while_it_runs"
PROMISES = "tests/sim/test_promises.py"
FAULTS = "tests/sim/test_local_faults.py"
FAILOVER = "tests/sim/test_cluster.py::test_acknowledged_data_survives_the_crash_of_the_primary"
STORMS = "tests/sim/test_cluster.py::test_a_storm_of_faults_loses_nothing"
MEMBERSHIP = "tests/replication/test_membership.py"
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
           "crcs[i] != request.extents[first + i].crc", "False", (FAULTS,)),
    Mutant(2, "checksum", "skip the CRC check of a batch's payload", FAST + "batch.pyx",
           "crcs[i] != batch_crc(block, i)[0]", "False", ("tests/fast/test_batch.py",)),
    Mutant(3, "checksum", "take blocks off the wire unchecked", FAST + "replica.pyx",
           "found[i] != crcs[i]", "False", ("tests/sim/test_wire.py",)),
    Mutant(4, "checksum", "take a client's write off the wire unchecked", FAST + "exports.pyx",
           "crc32c(0, body, header.body_bytes) != asked.crc", "False", ("tests/sim/test_wire.py",)),
    # ------------------------------------------------------------- batches, log, flushes
    Mutant(10, "batch", "acknowledge batch k+1 before k is written", FAST + "log.pyx",
           "batch.state != BATCH_WRITTEN",
           "batch.state != BATCH_WRITTEN and (log.chain_count < 2 or "
           "log.chain[(log.chain_head + 1) % BATCHES].state != BATCH_WRITTEN)", (CRASH_SHORT,)),
    Mutant(11, "batch", "retry a failed fsync", FAST + "engine.pyx",
           "if result < 0:\n"
           "    store_fail(engine, -result)\n"
           "    return\n"
           "engine.store.log.flushed_sequence = engine.store.log.flushing_sequence",
           "if result < 0:\n"
           "    engine.store.log.flush_wanted = True\n"
           "    return\n"
           "engine.store.log.flushed_sequence = engine.store.log.flushing_sequence", (FAULTS,)),
    Mutant(12, "batch", "let a flush cover what was written behind it", FAST + "engine.pyx",
           "engine.volumes[i].flushing_lsn = engine.volumes[i].local_lsn",
           "engine.volumes[i].flushing_lsn = engine.volumes[i].last_lsn", (CRASH_FLUSHES,)),
    Mutant(13, "batch", "a batch claims that more was flushed than was", FAST + "log.pyx",
           "header.flushed_sequence = log.flushed_sequence",
           "header.flushed_sequence = log.completed_sequence", (CRASH_SHORT,)),
    Mutant(14, "batch", "take a failed write for a good one", FAST + "log.pyx",
           "result != wanted", "False", (FAULTS,)),
    # ----------------------------------------------------------- map, checkpoint, segments
    Mutant(20, "map", "reuse a segment one flush early", FAST + "checkpoint.pyx",
           "checkpoint.step > CHECKPOINT_MIRROR", "checkpoint.step > CHECKPOINT_SUPER_A",
           ("tests/sim/test_simulated.py", CRASH_CLEANER)),
    Mutant(21, "map", "name a root that is not flushed", FAST + "checkpoint.pyx",
           "checkpoint.step += 1",
           "checkpoint.step += 2 if checkpoint.step == CHECKPOINT_ROOT else 1",
           ("tests/sim/test_simulated.py", CRASH_SHORT)),
    Mutant(24, "map", "forget that an overwritten block is dead", FAST + "volume.pyx",
           "segment_lose(store, extent.location)", "pass", (CRASH_SHORT,)),
    Mutant(25, "map", "reuse a segment that is still being read", FAST + "segments.pxd",
           "segment.pins == 0", "True", (FAULTS,)),
    Mutant(26, "map", "replay commits what was only pending", FAST + "service.pyx",
           "mark.lsn = volume.commit_lsn", "mark.lsn = volume.last_lsn", (FAILOVER, STORMS)),
    # --------------------------------------------------------------------------- recovery
    Mutant(30, "recovery", "cut the log although a later batch proves it was flushed", STORE + "recovery.py",
           '(later["flushed_sequence"] >= k).any()', "False", (RECOVERY,)),
    Mutant(31, "recovery", "replay a batch whose payload is torn", STORE + "recovery.py",
           '(log["fault"] == FAULT_NONE)', "True", (RECOVERY, CRASH_SHORT)),
    Mutant(32, "recovery", "a new life writes under the name of the dead one", FAST + "loading.pyx",
           "engine.store.life_id = life_id", "pass", (CRASH_SHORT,)),
    Mutant(33, "recovery", "let one superblock of four decide", STORE + "superblock.py",
           "len(copies) >= SUPERBLOCK_READ_QUORUM", "len(copies) >= 1", ("tests/store/test_superblock.py",)),
    Mutant(34, "recovery", "trust the end of the log after a power cut", STORE + "recovery.py",
           'verdict == "lost" or not same_boot', 'verdict == "lost"', (RECOVERY,), rule="R-taint"),
    # ---------------------------------------------------------------------------- cleaner
    Mutant(40, "cleaner", "move a block although it was overwritten meanwhile", FAST + "volume.pyx",
           "extent.location == record.source + i", "True", (CRASH_CLEANER,)),
    Mutant(42, "cleaner", "let clients take the segments that the cleaner needs", FAST + "segments.pyx",
           "0 if segment_class == CLASS_CLEANER else store.reserve", "0", (FAULTS,)),
    # -------------------------------------------------------------------- acknowledgement
    Mutant(50, "acknowledgement", "acknowledge before the members have it", FAST + "service.pyx",
           "volume_commit(engine, volume, acknowledged_by_all(volume))",
           "volume_commit(engine, volume, volume.local_lsn)", (FAILOVER,)),
    Mutant(51, "acknowledgement", "answer a flush when all is written", FAST + "service.pyx",
           "before = durable_on_all(volume)", "before = acknowledged_by_all(volume)", (CRASH_SHORT,)),
    Mutant(52, "acknowledgement", "answer FUA when it is written", FAST + "service.pyx",
           "request.flags |= REQUEST_DURABLE", "pass", (CRASH_SHORT,)),
    Mutant(53, "acknowledgement", "acknowledge with fewer copies than min_copies", FAST + "service.pyx",
           "copies_in_sync(volume) >= volume.min_copies", "True",
           (PROMISES,)),
    Mutant(54, "acknowledgement", "read without a lease", FAST + "quorum.pxd",
           "member_counts(&volume.members[i]) and volume.members[i].lease_until_ns <= now_ns", "False",
           (PROMISES,)),
    Mutant(55, "acknowledgement", "repeat a write that was sent again after a failover", FAST + "volume.pyx",
           "(volume.session_window[(number // 64) % SESSION_WINDOW_WORDS] >> (number % 64)) & 1", "False",
           (PROMISES,)),
    Mutant(57, "acknowledgement", "count an acknowledgement of an old epoch", FAST + "primary.pyx",
           "header.epoch != volume.epoch", "False", (PROMISES,), rule="R-session"),
    Mutant(58, "acknowledgement", "serve a client whose session is over", FAST + "service.pyx",
           "if request.session < volume.session:\n"
           "    refuse_stale(request)\n"
           "    return", "pass", (PROMISES,), rule="R-session"),
    # ------------------------------------------------------------------------- membership
    Mutant(60, "membership", "acknowledge before the eject is durable", POLICY + "leadership.py",
           "actions.append(Swap(proposal, here.revision))",
           "actions += [Swap(proposal, here.revision), SetMembers(tuple("
           "node for node in proposal.in_sync_nodes() if node != here.me.node))]",
           (TRANSCRIPTS,), rule="R-eject"),
    Mutant(61, "membership", "the engine drops a member that it cannot reach", FAST + "primary.pyx",
           "if member.state == MEMBER_LEARNER:\n"
           "    member_remove(volume, i)\n"
           "return", "member_remove(volume, i)\nreturn", (FAILOVER, STORMS), rule="R-eject"),
    Mutant(62, "membership", "a joiner counts only when it has joined", FAST + "quorum.pxd",
           "member.state == MEMBER_IN_SYNC or member.state == MEMBER_JOINING",
           "member.state == MEMBER_IN_SYNC", (FAILOVER, STORMS), rule="R-join"),
    Mutant(63, "membership", "a joiner says that it flushed when it wrote", FAST + "volume.pyx",
           "if volume.barriers[kind] == BARRIER_LOGGED:\n"
           "    volume.barriers[kind] = BARRIER_APPLIED",
           "if volume.barriers[kind] == BARRIER_LOGGED:\n"
           "    volume.barriers[kind] = 5 if kind == BARRIER_JOIN else BARRIER_APPLIED",
           (PROMISES,), rule="R-join"),
    Mutant(64, "membership", "obey the primary of an epoch below the seal", FAST + "replica.pyx",
           "header.epoch < volume.sealed_epoch", "False", (PROMISES,), rule="R-seal"),
    Mutant(65, "membership", "answer a seal before it is durable", FAST + "replica.pyx",
           "volume.barriers[kind] = BARRIER_LOGGED",
           "volume.barriers[kind] = BARRIER_DONE if kind == BARRIER_SEAL else BARRIER_LOGGED",
           (PROMISES,), rule="R-seal"),
    Mutant(66, "membership", "let a tainted member lead", POLICY + "promotion.py",
           "clean and mine.tainted", "False", (TRANSCRIPTS,), rule="R-taint"),
    Mutant(67, "membership", "lead the old epoch again after a restart", POLICY + "policy.py",
           "if is_member and self._may_stand(role, local, now_s):\n"
           "    self._stand(local, now_s)\n"
           "    return actions",
           "volume = here.volume\n"
           "if is_member and volume.epoch and volume.primary == here.me.node:\n"
           "    others = tuple((node, local.last_lsn) for node in volume.in_sync_nodes() if node != here.me.node)\n"
           "    self.role = Leader(volume.epoch, tuple(node for node, _ in others), volume.last_session)\n"
           "    return [*actions, Lead(volume.epoch, volume.incarnation, others, volume.copies, volume.min_copies,\n"
           "                           volume.acknowledgement == 'durable', volume.last_session)]\n"
           "if is_member and self._may_stand(role, local, now_s):\n"
           "    self._stand(local, now_s)\n"
           "    return actions", (TRANSCRIPTS,), rule="new epoch"),
    Mutant(68, "membership", "lead without the longest tail", POLICY + "promotion.py",
           "longest.last_lsn > mine.last_lsn", "False", (TRANSCRIPTS,)),
    Mutant(69, "membership", "keep a member whose log is no prefix of ours", POLICY + "promotion.py",
           "mine.commit_lsn <= report.last_lsn <= mine.last_lsn", "True", (TRANSCRIPTS,)),
    Mutant(140, "membership", "take over while a grant of ours holds", POLICY + "promotion.py",
           "self._is_lent(here, local, now_s)", "False", (TRANSCRIPTS,)),
    Mutant(70, "membership", "eject below min_copies", POLICY + "membership.py",
           "len(remaining) > volume.min_copies", "len(remaining) > 1", (MEMBERSHIP,)),
    # ----------------------------------------------------------------------------- resync
    Mutant(80, "resync", "do not note what changed while a copy is away", FAST + "volume.pyx",
           "state = mark_changed(engine, volume, entry.lba, entry.blocks, entry.lsn)", "state = LOOKUP_OK",
           (FAILOVER, STORMS)),
    Mutant(83, "resync", "trust an epoch that died before its records were adopted", POLICY + "membership.py",
           "entry.epoch > last_epoch or entry.dead", "entry.epoch > last_epoch", (MEMBERSHIP, TRANSCRIPTS)),
    Mutant(84, "resync", "resume a member whose copy is incomplete", POLICY + "leadership.py",
           'if event.learning:\n    return "its copy is incomplete"', "pass", (TRANSCRIPTS,)),
    # -------------------------------------------------------------------------------- NBD
    Mutant(90, "nbd", "forget FUA", NBD + "transmission.pyx",
           "RS_FUA if flags & NBD_CMD_FLAG_FUA else 0", "0", (TRANSMISSION,), seeds=False),
    Mutant(91, "nbd", "take a request that ends behind the volume", NBD + "transmission.pyx",
           "offset > connection.size_bytes or length > connection.size_bytes - offset",
           "offset > connection.size_bytes", (TRANSMISSION,), seeds=False),
    Mutant(92, "nbd", "answer a failed write with success", NBD + "transmission.pyx",
           "set_simple(&simple, operation, wire_error(operation.error))", "set_simple(&simple, operation, 0)",
           (TRANSMISSION,), seeds=False),
    Mutant(93, "nbd", "only the last part's error counts", NBD + "transmission.pyx",
           "request.error != 0 and operation.error == 0", "last and request.error != 0", (TRANSMISSION,), seeds=False),
    Mutant(94, "nbd", "write to a read-only export", NBD + "transmission.pyx",
           "(growing or kind == RS_TRIM)", "False", (TRANSMISSION,), seeds=False),
    Mutant(95, "nbd", "hang up before the answers under way are sent", NBD + "transmission.pyx",
           "connection.references == 1", "True", (TRANSMISSION,), seeds=False),
)
