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
COORDINATION = "src/repstore/coordination/"
NBD = "bindings/nbd/"

CRASH = "tests/sim/test_crash_states.py"
CRASH_SHORT = CRASH + "::test_every_crash_of_a_short_workload_leaves_a_legal_state"
CRASH_CLEANER = CRASH + "::test_crashes_with_the_cleaner_at_work_leave_legal_states"
CRASH_AGAIN = CRASH + "::test_a_second_crash_during_recovery_leaves_a_legal_state"
CRASH_FLUSHES = CRASH + "::test_a_flush_promises_nothing_of_the_writes_that_end_while_it_runs"
PROMISES = "tests/sim/test_promises.py"
WINDOWS = "tests/sim/test_windows.py"
RESYNC = "tests/sim/test_resync_rules.py"
PAGES = "tests/sim/test_page_slots.py"
PULLS = "tests/sim/test_pulls.py"
SPACE = "tests/sim/test_space.py"
SESSIONS = "tests/sim/test_request_sessions.py"
BARRIERS = "tests/sim/test_barriers.py"
FULL = "tests/sim/test_full_resync.py"
STALLED = "tests/sim/test_stalled_links.py"
STANDSTILL = "tests/sim/test_standstill.py"
BOOT = "tests/sim/test_boot.py"
LIVES = "tests/sim/test_lives.py"
NODE_LIVES = "src/repstore/node/lives.py"
CLEAN_REBOOT = "tests/sim/test_clean_reboot.py"
READ_ERRORS = "tests/sim/test_read_errors.py"
REPAIR = "tests/sim/test_repair.py"
READ_ERRORS = "tests/sim/test_read_errors.py"
CONFORMANCE = "tests/coordination/test_conformance.py"
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
           "crcs[i] != request.extents[first + i].crc", "False", (FAULTS + "::test_a_rotten_block_is_an_error_and_the_others_are_right",)),
    Mutant(2, "checksum", "skip the CRC check of a batch's payload", FAST + "batch.pyx",
           "crcs[i] != batch_crc(block, i)[0]", "False", ("tests/fast/test_batch.py",)),
    Mutant(3, "checksum", "take blocks off the wire unchecked", FAST + "stream.pyx",
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
           "engine.store.log.flushed_sequence = engine.store.log.flushing_sequence", (FAULTS + "::test_a_failed_operation_is_not_tried_again",)),
    Mutant(12, "batch", "let a flush cover what was written behind it", FAST + "engine.pyx",
           "engine.volumes[i].flushing_lsn = engine.volumes[i].local_lsn",
           "engine.volumes[i].flushing_lsn = engine.volumes[i].last_lsn", (CRASH_FLUSHES,)),
    Mutant(13, "batch", "a batch claims that more was flushed than was", FAST + "log.pyx",
           "header.flushed_sequence = log.flushed_sequence",
           "header.flushed_sequence = log.completed_sequence", (CRASH_SHORT,)),
    Mutant(14, "batch", "take a failed write for a good one", FAST + "log.pyx",
           "result != wanted", "False", (FAULTS + "::test_a_failed_operation_is_not_tried_again",)),
    Mutant(17, "batch", "no word about the last flush", FAST + "log.pyx",
           "log.told_sequence >= min(log.flushed_sequence, log.filled_sequence)", "True",
           (FAULTS + "::test_the_last_flushed_batch_is_no_torn_tail",)),
    Mutant(18, "batch", "a seal waits for room like a client's write", FAST + "log.pyx",
           "reserve(engine, CLASS_USER, records, 0, True)", "reserve(engine, CLASS_USER, records, 0, False)",
           ("tests/sim/test_windows.py::test_a_store_full_of_uncommitted_records_has_room_for_what_commits_them",)),
    # ----------------------------------------------------------- map, checkpoint, segments
    Mutant(20, "map", "reuse a segment one flush early", FAST + "checkpoint.pyx",
           "checkpoint.step > CHECKPOINT_MIRROR", "checkpoint.step > CHECKPOINT_SUPER_A",
           ("tests/sim/test_simulated.py", CRASH_CLEANER)),
    Mutant(21, "map", "name a root that is not flushed", FAST + "checkpoint.pyx",
           "checkpoint.step += 1",
           "checkpoint.step += 2 if checkpoint.step == CHECKPOINT_ROOT else 1",
           ("tests/sim/test_simulated.py", CRASH_SHORT)),
    Mutant(22, "checkpoint", "give a page's old slot back before the checkpoint that frees it", FAST + "checkpoint.pyx",
           "slots_retire(&store.slots.leaving, reference.slot)",
           "if reference.slot:\n"
           "    store.slots.words[reference.slot >> 6] &= ~(<uint64_t>1 << (reference.slot & 63))", (PAGES + "::test_a_slot_that_the_last_checkpoint_names_is_not_written",)),
    Mutant(23, "checkpoint", "write what changed after a checkpoint began into its pages", FAST + "page_tree.pyx",
           "capture_page(tree, page, directory, captures) != 0", "False", (PAGES + "::test_what_is_written_while_a_page_waits_is_not_in_the_checkpoint",)),
    Mutant(27, "checkpoint", "a life begins without a flush", FAST + "checkpoint.pyx",
           "checkpoint.step = CHECKPOINT_SETTLE\nflush(engine)\nreturn True", "pass", (CRASH + "::test_a_crash_while_what_a_crash_left_is_opened_leaves_a_store",)),
    Mutant(28, "checkpoint", "write the superblocks in any order", FAST + "checkpoint.pyx",
           "<int>((lagging >> copy) & 1) == wanted", "wanted == 1", (CRASH_AGAIN,)),
    Mutant(29, "checkpoint", "a batch of a new life before its name is durable", FAST + "checkpoint.pyx",
           "checkpoint.number == 0 or checkpoint.clean", "checkpoint.clean", (BOOT + "::test_a_life_writes_nothing_to_its_log_before_its_name_is_durable",)),
    Mutant(190, "checkpoint", "a root names a bitmap that was begun after it was laid out", FAST + "root.pyx",
           "engine.volumes[v].root_tree_count", "1 + engine.volumes[v].change_count",
           (BOOT + "::test_a_change_bitmap_that_is_begun_while_a_checkpoint_is_written_is_not_in_it",)),
    Mutant(15, "checkpoint", "no second root", FAST + "checkpoint.pyx",
           "write_root(engine, CHECKPOINT_MIRROR, engine.store.superblock.root_area)",
           "write_root(engine, CHECKPOINT_MIRROR, 1 - engine.store.superblock.root_area)", (REPAIR + "::test_a_damaged_root_is_read_from_its_second_copy_and_mended",)),
    Mutant(195, "map", "give up a page while the disk gives nothing", FAST + "pages.pyx",
           "read_later(engine, load, page, given)", "read_later(engine, load, page, True)",
           (READ_ERRORS + "::test_a_page_is_not_given_up_while_the_disk_gives_nothing",), seeds=False),
    Mutant(16, "map", "reuse a segment whose blocks are only pending", FAST + "segments.pxd",
           "segment.pending == 0", "True", (CRASH_SHORT,)),
    Mutant(24, "map", "forget that an overwritten block is dead", FAST + "volume.pyx",
           "segment_lose(store, extent.location)", "pass", (CRASH_SHORT,)),
    Mutant(25, "map", "reuse a segment that is still being read", FAST + "segments.pxd",
           "segment.pins == 0", "True", (FAULTS + "::test_a_segment_is_not_used_again_while_it_is_read",)),
    Mutant(26, "map", "replay commits what was only pending", FAST + "records.pyx",
           "mark.lsn = volume.commit_lsn", "mark.lsn = volume.last_lsn", (FAILOVER, STORMS)),
    # --------------------------------------------------------------------------- recovery
    Mutant(30, "recovery", "cut the log although a later batch proves it was flushed", STORE + "recovery.py",
           '(later["flushed_sequence"] >= k).any()', "False", (RECOVERY,)),
    Mutant(31, "recovery", "replay a batch whose payload is torn", STORE + "recovery.py",
           '(log["fault"] == FAULT_NONE)', "True", (RECOVERY, CRASH_SHORT)),
    Mutant(32, "recovery", "a new life writes under the name of the dead one", FAST + "loading.pyx",
           "engine.store.life_id = life_id", "pass", (CRASH_AGAIN,)),
    Mutant(201, "recovery", "a start takes a new segment", FAST + "loading.pyx",
           "engine.store.log.heads[i].cursor == 0", "True",
           (LIVES + "::test_a_start_takes_no_segment_where_few_are_free",)),
    Mutant(207, "recovery", "go on where the last life ended, whatever ended it", FAST + "loading.pyx",
           "segments_free(&engine.store) > engine.store.low", "False",
           (LIVES + "::test_a_block_that_cannot_be_written_ends_one_life",)),
    Mutant(208, "checkpoint", "no flush behind the last root of a clean close", FAST + "checkpoint.pyx",
           "checkpoint.step == CHECKPOINT_FLUSH_MIRROR", "False",
           ("tests/check/test_fsck.py::test_a_store_that_lost_power_behind_a_clean_close_is_clean",)),
    Mutant(202, "recovery", "go on where the last batch has its payload", FAST + "loading.pyx",
           "header.offset_blocks + 1 + header.payload_blocks", "header.offset_blocks + 1",
           (LIVES + "::test_a_start_takes_no_segment_where_few_are_free",)),
    Mutant(203, "recovery", "look for the log in front of where it went on", STORE + "unread.py",
           "(0, segment, written)", "(0, segment, 0)", (RECOVERY,)),
    Mutant(33, "recovery", "let one superblock of four decide", STORE + "superblock.py",
           "len(copies) >= SUPERBLOCK_READ_QUORUM", "len(copies) >= 1", ("tests/store/test_superblock.py",)),
    Mutant(34, "recovery", "trust the end of the log after a power cut", STORE + "recovery.py",
           'end.verdict == "lost" or not same_boot', 'end.verdict == "lost"', (RECOVERY,), rule="R-taint"),
    Mutant(35, "recovery", "cut what was acknowledged although no power was lost", STORE + "recovery.py",
           '"corruption" if same_boot else "lost"', '"lost"', (RECOVERY,)),
    Mutant(36, "recovery", "replay a batch that does not name the one before it", STORE + "recovery.py",
           '(log["previous_crc"] == previous)', "(log[\"sequence\"] == expected)", (RECOVERY,)),
    Mutant(194, "recovery", "keep a torn batch because a block of it cannot be read", STORE + "recovery.py",
           "FAULT_BAD_PAYLOAD if wrong - self.unreadable else FAULT_UNREAD", "FAULT_UNREAD", (RECOVERY,)),
    Mutant(37, "recovery", "a copy that lost flushed batches passes for complete", FAST + "control.pyx",
           "volume_incomplete(self.engine, self.engine.volumes[i])", "pass", (REPAIR + "::test_a_copy_whose_log_is_damaged_leads_nobody",)),
    # ---------------------------------------------------------------------------- cleaner
    Mutant(40, "cleaner", "move a block although it was overwritten meanwhile", FAST + "volume.pyx",
           "here and (extent.crc == (crcs - i)[0] or extent.location == LOCATION_LOST)", "True", (CRASH_CLEANER,)),
    Mutant(42, "cleaner", "let clients take the segments that the cleaner needs", FAST + "segments.pyx",
           "segments_free(store) <= kept", "segments_free(store) == 0",
           ("tests/sim/test_cleaner.py::test_clients_leave_the_last_segments_to_the_cleaner",)),
    Mutant(43, "cleaner", "move a rotten block as it is", FAST + "cleaner.pyx",
           "crc32c(0, bytes, BLOCK_SIZE) != extent.crc", "False", (REPAIR + "::test_the_cleaner_of_a_replica_mends_what_it_meets",)),
    Mutant(196, "cleaner", "take the last room for one victim after another", FAST + "cleaner.pyx",
           "cleaner.took_room and segments_few(store)", "False",
           (READ_ERRORS + "::test_victims_that_can_be_read_in_part_do_not_take_the_last_room",)),
    Mutant(197, "cleaner", "count errors that are over with those that come next", FAST + "cleaner.pyx",
           "patience.again_ns < cleaner.rested_ns", "False",
           (READ_ERRORS + "::test_errors_that_ended_while_no_room_was_wanted_are_not_those_that_come_next",)),
    # -------------------------------------------------------------------- acknowledgement
    Mutant(50, "acknowledgement", "acknowledge before the members have it", FAST + "service.pyx",
           "volume_commit(engine, volume, acknowledged_by_all(volume))",
           "volume_commit(engine, volume, volume.local_lsn)", (FAILOVER,)),
    Mutant(51, "acknowledgement", "answer a flush when all is written", FAST + "service.pyx",
           "durable_lsn = durable_on_all(volume)", "durable_lsn = acknowledged_by_all(volume)", (CRASH_SHORT,)),
    Mutant(52, "acknowledgement", "answer FUA when it is written", FAST + "service.pyx",
           "request.flags |= REQUEST_DURABLE", "pass", (CRASH_SHORT,)),
    Mutant(53, "acknowledgement", "acknowledge with fewer copies than min_copies", FAST + "service.pyx",
           "copies_in_sync(volume) >= volume.min_copies", "True",
           (PROMISES + "::test_nothing_is_acknowledged_with_fewer_copies_than_min_copies",)),
    Mutant(54, "acknowledgement", "read without a lease", FAST + "quorum.pxd",
           "member_counts(&volume.members[i]) and volume.members[i].lease_until_ns <= now_ns", "False",
           (PROMISES + "::test_a_primary_that_is_cut_off_answers_no_read_when_its_lease_is_over",)),
    Mutant(55, "acknowledgement", "repeat a write that was sent again after a failover", FAST + "volume.pyx",
           "(volume.session_window[(number // 64) % SESSION_WINDOW_WORDS] >> (number % 64)) & 1", "False",
           (PROMISES + "::test_a_write_that_is_sent_again_is_logged_once",)),
    Mutant(57, "acknowledgement", "count an acknowledgement of an old epoch", FAST + "primary.pyx",
           "header.epoch != volume.epoch", "False", (PROMISES + "::test_an_acknowledgement_of_an_older_epoch_does_not_count",), rule="R-session"),
    Mutant(58, "acknowledgement", "serve a client whose session is over", FAST + "service.pyx",
           "if request.session < volume.session:\n"
           "    refuse_stale(request)\n"
           "    return", "pass", (PROMISES + "::test_a_session_that_is_over_is_refused_by_the_primary_itself",), rule="R-session"),
    Mutant(56, "acknowledgement", "count an acknowledgement of an old session as learner", FAST + "primary.pyx",
           "header.chain != member.learn_serial", "False", (RESYNC + "::test_what_a_learner_said_in_an_earlier_session_is_no_answer_to_the_join",), rule="R-session"),
    Mutant(59, "acknowledgement", "a flush counts this copy alone", FAST + "quorum.pxd",
           "member_counts(&volume.members[i]) and volume.members[i].durable_lsn < lsn", "False", (PROMISES + "::test_a_flush_is_answered_when_all_copies_have_flushed",)),
    Mutant(110, "acknowledgement", "a new primary answers before the dead one's last writes are committed",
           FAST + "primary.pyx",
           "# what the dead primary acknowledged is in our tail: nobody reads before it is committed\n"
           "volume.session_barrier = volume.last_lsn", "volume.session_barrier = 0", (RESYNC + "::test_a_new_primary_reads_what_the_dead_one_acknowledged",)),
    Mutant(112, "acknowledgement", "a write that fills no block ignores another one there", FAST + "service.pyx",
           "pending_overlaps(volume, request.lba, request.blocks) or overlaps(&volume.waiting, request)", "False",
           ("tests/test_volume.py",)),
    # ------------------------------------------------------------------------- membership
    Mutant(60, "membership", "acknowledge before the eject is durable", POLICY + "leadership.py",
           "actions.append(Swap(proposal, here.revision))",
           "actions += [Swap(proposal, here.revision), SetMembers(tuple("
           "node for node in proposal.in_sync_nodes() if node != here.me.node))]",
           (TRANSCRIPTS,), rule="R-eject"),
    Mutant(61, "membership", "the engine drops a member that it cannot reach", FAST + "primary.pyx",
           "if member.state == MEMBER_LEARNER:\n"
           "    member_remove(volume, i)\n"
           "return", "member_remove(volume, i)\nreturn", (RESYNC + "::test_a_member_out_of_reach_counts_until_the_config_says_otherwise",), rule="R-eject"),
    Mutant(108, "membership", "forget a joiner when another one has joined", FAST + "primary.pyx",
           "if listed:\n"
           "    volume.members[i].state = MEMBER_IN_SYNC\n"
           "elif volume.members[i].state == MEMBER_IN_SYNC:\n"
           "    member_remove(volume, i)\n"
           "    continue",
           "if listed:\n"
           "    volume.members[i].state = MEMBER_IN_SYNC\n"
           "elif member_counts(&volume.members[i]):\n"
           "    member_remove(volume, i)\n"
           "    continue",
           (PROMISES + "::test_two_that_join_at_a_time_count_both_when_one_of_them_has_joined",),
           rule="R-both-sets"),
    Mutant(85, "membership", "drop a joiner while its join may have won", POLICY + "leadership.py",
           "here.swap is not None and here.swap.volume.member(node) is not None", "False", (TRANSCRIPTS,),
           rule="R-both-sets"),
    Mutant(86, "membership", "take an unknown outcome for a lost swap", POLICY + "policy.py",
           "event.outcome", "Outcome.UNAVAILABLE if event.outcome is Outcome.UNKNOWN else event.outcome",
           (TRANSCRIPTS,), rule="R-both-sets"),
    Mutant(188, "membership", "take the end of an earlier copy for that of the next", POLICY + "leadership.py",
           "self._phase(node) is phase and self.learners[node].serial == serial", "self._phase(node) is phase",
           (TRANSCRIPTS,), rule="R-caught-up"),
    Mutant(189, "membership", "who asked before it heard what was on its way must learn", FAST + "primary.pyx",
           "member.linked and (member.streaming or member.tailing) and last_lsn < member.acked_lsn", "False",
           (STALLED + "::test_a_member_that_asked_before_it_heard_what_was_on_its_way_stays",)),
    Mutant(198, "membership", "answer what a member asked on the link before", FAST + "primary.pyx",
           "not member.asks or member.asks_lsn != last_lsn", "False",
           (STALLED + "::test_what_was_asked_on_the_link_before_is_not_what_is_lacked_on_this_one",)),
    Mutant(199, "membership", "what was held against a member outlives its entry in the config", POLICY + "leadership.py",
           "self.unfit.get(node, member) != member", "False", (TRANSCRIPTS,)),
    Mutant(62, "membership", "a joiner counts only when it has joined", FAST + "quorum.pxd",
           "member.state == MEMBER_IN_SYNC or member.state == MEMBER_JOINING",
           "member.state == MEMBER_IN_SYNC", (FAILOVER, STORMS), rule="R-both-sets"),
    Mutant(63, "membership", "a joiner says that it flushed when it wrote", FAST + "volume.pyx",
           "if volume.barriers[kind] == BARRIER_LOGGED:\n"
           "    volume.barriers[kind] = BARRIER_APPLIED",
           "if volume.barriers[kind] == BARRIER_LOGGED:\n"
           "    volume.barriers[kind] = 5 if kind == BARRIER_JOIN else BARRIER_APPLIED",
           (PROMISES + "::test_who_joins_has_flushed_everything",), rule="R-flushed"),
    Mutant(71, "membership", "a learner joins while blocks are still being copied", POLICY + "leadership.py",
           "learner.phase is Phase.CAUGHT_UP and room > 0",
           "learner.phase in (Phase.COPYING, Phase.CAUGHT_UP) and room > 0", (TRANSCRIPTS,), rule="R-caught-up"),
    Mutant(72, "membership", "a learner's stream begins behind writes that are pending", FAST + "primary.pyx",
           "if volume.commit_lsn != volume.last_lsn or volume.unapplied_records or volume.leading:\n    return",
           "if volume.leading:\n    return", (RESYNC + "::test_a_write_that_is_pending_when_a_copy_comes_back_reaches_it",), rule="R-caught-up"),
    Mutant(73, "membership", "a join that is proposed again names the boot of now", POLICY + "policy.py",
           "return [self.here.swap]",
           "from msgspec.structs import replace\n"
           "swap = self.here.swap\n"
           "now = tuple(replace(member, boot_id=getattr(self.here.identity_of(member.node), 'boot_id', member.boot_id))\n"
           "            for member in swap.volume.in_sync)\n"
           "return [Swap(replace(swap.volume, in_sync=now), swap.expected_revision)]", (TRANSCRIPTS,), rule="R-boot"),
    Mutant(64, "membership", "obey the primary of an epoch below the seal", FAST + "replica.pyx",
           "header.epoch < volume.sealed_epoch", "False", (PROMISES + "::test_who_is_sealed_refuses_the_primary_of_an_older_epoch",), rule="R-seal"),
    Mutant(65, "membership", "answer a seal before it is durable", FAST + "replica.pyx",
           "volume.barriers[kind] = BARRIER_LOGGED",
           "volume.barriers[kind] = BARRIER_DONE if kind == BARRIER_SEAL else BARRIER_LOGGED",
           (PROMISES + "::test_a_seal_is_durable_when_another_leads",), rule="R-seal"),
    Mutant(74, "membership", "count the answer to an older seal", POLICY + "promotion.py",
           "event.epoch < self.target_epoch", "False", (TRANSCRIPTS,), rule="R-seal"),
    Mutant(66, "membership", "let a tainted member lead", POLICY + "promotion.py",
           "clean and mine.tainted", "False", (TRANSCRIPTS,), rule="R-taint"),
    Mutant(75, "membership", "a boot tells nothing", POLICY + "membership.py",
           "member.boot_id != boot_id", "False", (MEMBERSHIP,), rule="R-taint"),
    Mutant(76, "membership", "a tainted copy leads though a silent one may be clean", POLICY + "promotion.py",
           "not clean and silent", "False", (TRANSCRIPTS,), rule="R-taint"),
    Mutant(77, "membership", "the client of a lost incarnation goes on", POLICY + "membership.py",
           "attach.incarnation != volume.incarnation", "False", ("tests/node/test_control.py",), rule="R-client"),
    Mutant(78, "membership", "a new incarnation takes the old session's requests", POLICY + "membership.py",
           "volume.last_session + tainted", "volume.last_session", ("tests/sim/test_incarnation.py",), rule="R-client"),
    Mutant(191, "membership", "a clean close in any boot counts for the one that the config knows", POLICY + "policy.py",
           "member.boot_id in me.closed_boot_ids", "me.closed_boot_ids", (TRANSCRIPTS,), rule="R-taint"),
    Mutant(210, "nbd", "attach for a connection that is gone", "src/repstore/node/control.py",
           "for_connection and not self._engine.export_awaited(name)", "False",
           ("tests/node/test_control.py::test_a_connection_that_is_gone_takes_a_volume_from_nobody",), seeds=False),
    Mutant(204, "membership", "a life is never confirmed", NODE_LIVES,
           "replace(record, behind_life_ids=())", "record",
           (BOOT + "::test_an_older_state_of_a_store_that_is_put_back_was_not_closed_last",), rule="R-taint"),
    Mutant(205, "membership", "a process that dies takes with it that nothing was lost", NODE_LIVES,
           "boots[boots.index(node.boot_id) + 1:] if node.boot_id in boots else ()", "()",
           (CLEAN_REBOOT,), rule="R-taint"),
    Mutant(206, "membership", "the last clean close is the only one that counts", NODE_LIVES,
           "boots[boots.index(closed_boot_id):] if closed_boot_id in boots else ()",
           "(closed_boot_id,)", (CLEAN_REBOOT,), rule="R-taint"),
    Mutant(209, "membership", "only the life that was entered last is the last one", NODE_LIVES,
           "(record.life_id, *record.behind_life_ids)", "(record.life_id,)", (CLEAN_REBOOT,), rule="R-taint"),
    Mutant(192, "membership", "a store that was not closed says that it was", STORE + "store.py",
           "known and found.superblock.clean and not same_boot", "known and not same_boot",
           (BOOT + "::test_only_a_store_that_was_closed_cleanly_says_in_which_boot",), rule="R-taint"),
    Mutant(200, "membership", "an older state of a store counts as closed last", NODE_LIVES,
           "found_life_id in _lives(load_nodes(store).get(name), found_life_id)", "True",
           (BOOT + "::test_an_older_state_of_a_store_that_is_put_back_was_not_closed_last",), rule="R-taint"),
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
           "    return actions", (TRANSCRIPTS,), rule="R-epoch"),
    Mutant(68, "membership", "lead without the longest tail", POLICY + "promotion.py",
           "longest.last_lsn > mine.last_lsn", "False", (TRANSCRIPTS,)),
    Mutant(69, "membership", "keep a member whose log is no prefix of ours", POLICY + "promotion.py",
           "mine.commit_lsn <= report.last_lsn <= mine.last_lsn", "True", (TRANSCRIPTS,)),
    Mutant(140, "membership", "take over while a grant of ours holds", POLICY + "promotion.py",
           "self._is_lent(here, local, now_s)", "False", (TRANSCRIPTS,)),
    Mutant(70, "membership", "eject below min_copies", POLICY + "membership.py",
           "len(remaining) > volume.min_copies", "len(remaining) > 1", (MEMBERSHIP,)),
    Mutant(79, "membership", "keep a member of our length and another content", POLICY + "promotion.py",
           "report.chain == mine.chain", "True", (TRANSCRIPTS,)),
    Mutant(100, "membership", "append behind a log that is not the primary's", FAST + "stream.pyx",
           "chain != volume.chain_last", "False", (RESYNC + "::test_records_that_do_not_fit_behind_a_log_are_refused",), rule="R-proof"),
    Mutant(101, "membership", "append behind a gap", FAST + "stream.pyx",
           "records[i].lsn > volume.last_lsn + 1", "False", (RESYNC + "::test_a_gap_in_the_stream_is_asked_for_at_once",)),
    Mutant(102, "membership", "grow the log under a seal that others were told of", POLICY + "promotion.py",
           "self._move_up(self.target_epoch + 1)     # P6", "pass", (TRANSCRIPTS,)),
    Mutant(103, "membership", "let another lead with our shorter log", POLICY + "policy.py",
           "role.log_grew(here.me.node, local)", "False", (TRANSCRIPTS,)),
    Mutant(104, "membership", "count an answer that proves nothing", FAST + "primary.pyx",
           "not is_our_history(volume, member.claim_lsn, member.claim_chain)", "False", (RESYNC + "::test_a_member_whose_running_hash_is_another_one_leaves",), rule="R-proof"),
    Mutant(113, "membership", "prove less than the log holds", FAST + "replica.pyx",
           "volume.unproved_lsn = volume.last_lsn", "volume.unproved_lsn = 0",
           (PULLS + "::test_what_a_member_pulled_does_not_count_as_the_new_primarys",), rule="R-proof"),
    Mutant(114, "membership", "go on with a pull when a primary is heard", FAST + "replica.pyx",
           "volume.pulling = -1\n"
           "inbox_drop(volume)                         # what waits there was pulled,",
           "inbox_drop(volume)",
           (PULLS + "::test_what_a_member_pulled_does_not_count_as_the_new_primarys",), rule="R-told"),
    Mutant(115, "membership", "begin a pull when a primary was heard", FAST + "replica.pyx",
           "volume.epoch >= volume.sealed_epoch", "False",
           (PULLS + "::test_nothing_is_pulled_at_an_epoch_that_somebody_leads",), rule="R-told"),
    Mutant(116, "membership", "tell the primary of before what was pulled under a seal", FAST + "replica.pyx",
           "volume.pull_ended |= header.flags & LAST_FLAG != 0",
           "volume.pull_ended |= header.flags & LAST_FLAG != 0\n"
           "volume.heard = True\n"
           "volume.heard_ns = engine.now_ns",
           (PULLS + "::test_who_is_sealed_tells_the_primary_of_before_nothing_of_what_it_pulls",), rule="R-seal"),
    Mutant(117, "membership", "drop our own report, not the tail that does not fit", FAST + "stream.pyx",
           "event_push(engine, EVENT_DIVERGED, volume.index, <uint32_t>volume.pulling, volume.sealed_epoch, 0, 0, 0, 0, NULL)",
           "event_push(engine, EVENT_DIVERGED, volume.index, engine.node, volume.sealed_epoch, 0, 0, 0, 0, NULL)",
           (PULLS + "::test_a_candidate_leads_without_a_tail_that_does_not_fit_its_log",)),
    Mutant(133, "membership", "wait for the silence of a member whose log is longer", FAST + "primary.pyx",
           "volume.local_lsn < member.claim_lsn <= volume.last_lsn", "volume.local_lsn < member.claim_lsn",
           (PULLS + "::test_what_a_member_pulled_does_not_count_as_the_new_primarys",)),
    Mutant(105, "membership", "a copy keeps what it committed and the others lost", POLICY + "membership.py",
           "entry.lossy and last_lsn >= entry.first_lsn", "False", (MEMBERSHIP,), rule="R-void"),
    Mutant(106, "membership", "lead with fewer copies than min_copies", POLICY + "promotion.py",
           "1 + len(members) < volume.min_copies and silent", "False", (TRANSCRIPTS,)),
    Mutant(107, "membership", "a failed store leaves though it may be the only one that has everything",
           POLICY + "policy.py", "self._can_be_spared()", "True", (TRANSCRIPTS,)),
    # ------------------------------------------------------------------------------ space
    Mutant(150, "space", "the room of members does not count", FAST + "service.pyx",
           "volume.members[i].free_blocks < room", "False", (SPACE + "::test_a_write_that_a_member_has_no_room_for_is_refused",)),
    Mutant(151, "space", "tell room that is not there", FAST + "replica.pyx",
           "answer.extra = space_left(&engine.store)", "answer.extra = engine.store.capacity_blocks",
           (SPACE + "::test_a_write_that_a_member_has_no_room_for_is_refused",)),
    Mutant(152, "space", "refuse by what a member told of an older commit", FAST + "service.pyx",
           "volume.members[i].free_lsn >= volume.commit_lsn", "True",
           (SPACE + "::test_what_a_member_told_before_the_last_commit_refuses_nothing",)),
    Mutant(153, "space", "take a write that may not fit", FAST + "service.pyx",
           "if space == SPACE_PERHAPS:\n    return WAIT", "pass",
           (SPACE + "::test_a_write_waits_for_what_is_on_its_way_and_is_refused_when_that_took_the_room",)),
    Mutant(154, "space", "refuse a write that may fit", FAST + "service.pyx",
           "growth <= room or not last_words", "not last_words",
           (SPACE + "::test_a_write_waits_for_what_is_on_its_way_and_is_done_when_that_only_replaced",)),
    # ----------------------------------------------------------------------- what is sent again
    Mutant(160, "acknowledgement", "take a request for logged whose record was dropped", FAST + "volume.pyx",
           "volume.session_highest = 0                 # the primary's follows: what it logged we have as copies\n"
           "memset(volume.session_window, 0, sizeof(volume.session_window))", "pass",
           (SESSIONS + "::test_a_request_whose_record_was_dropped_is_not_taken_for_logged",)),
    Mutant(161, "acknowledgement", "let thousands overtake a write that is not logged yet", FAST + "service.pyx",
           "outruns(&volume.merging, request)", "False",
           (SESSIONS + "::test_a_write_that_thousands_overtook_is_not_taken_for_logged",)),
    Mutant(162, "acknowledgement", "send what an older session left under the new one", FAST + "service.pyx",
           "request.export.revoked or request.session != request.export.session", "False",
           (SESSIONS + "::test_what_an_older_session_left_is_not_sent_under_the_new_one",)),
    Mutant(163, "acknowledgement", "a copy learns blocks, and not which requests wrote them", FAST + "volume.pyx",
           "session_take(volume, record)", "pass",
           (SESSIONS + "::test_what_a_copy_learned_is_not_written_again",)),
    Mutant(164, "acknowledgement", "take a part of a long range for all of it", FAST + "service.pyx",
           "lba == end", "True",
           (SESSIONS + "::test_half_of_a_long_range_is_not_taken_for_all_of_it",)),
    Mutant(165, "acknowledgement", "say what is where without a lease", FAST + "service.pyx",
           "if not lease_valid(volume, engine.now_ns):\n    return WAIT", "pass",
           (PROMISES + "::test_a_primary_that_was_replaced_says_of_no_block_that_it_is_a_hole",)),
    # ---------------------------------------------------------------------------- standstill
    Mutant(166, "space", "log more than a root holds", FAST + "records.pyx",
           "control or root_has_room(engine, volume, records, payload_blocks)", "True",
           (WINDOWS + "::test_a_store_opens_with_many_uncommitted_records",)),
    Mutant(167, "membership", "news that nobody waits for push out those that somebody does", FAST + "events.pyx",
           "ring.count >= EVENTS_MAX // 2 and may_be_lost(kind)", "False",
           (STANDSTILL + "::test_news_that_matter_are_not_lost_behind_news_that_do_not",)),
    Mutant(168, "resync", "leave what was lent to a copy that stands still", FAST + "engine.pyx",
           "engine.now_ns >= here.lent_ns + LENT_NS", "False",
           (STANDSTILL + "::test_a_copy_that_stands_still_while_it_returns_takes_no_log_buffers_with_it",
            STANDSTILL + "::test_a_copy_that_stands_still_while_it_returns_takes_not_all_transfers_with_it")),
    # --------------------------------------------------------------------------- barriers
    Mutant(169, "membership", "say sealed when an older seal is durable", FAST + "volume.pyx",
           "record.epoch == volume.sealed_epoch", "True",
           (BARRIERS + "::test_a_seal_is_told_when_it_is_durable_and_not_when_an_older_one_is",), rule="R-seal"),
    Mutant(170, "resync", "say flushed when it was in an older session", FAST + "volume.pyx",
           "record.request == volume.learn_serial", "True",
           (BARRIERS + "::test_a_joiner_that_begins_anew_says_flushed_of_what_it_was_sent_then",), rule="R-flushed"),
    Mutant(171, "resync", "flush for a join because an older session asked", FAST + "replica.pyx",
           "header.flags & JOIN_FLAG != 0 and is_of_session(volume, header)", "header.flags & JOIN_FLAG != 0",
           (BARRIERS + "::test_an_older_sessions_request_to_flush_does_not_complete_a_new_one",), rule="R-flushed"),
    # -------------------------------------------------------------------------- standstill
    Mutant(172, "acknowledgement", "a volume that waits takes all requests", FAST + "requests.pyx",
           "request == NULL or not request_left(engine, holder)", "request == NULL",
           (STANDSTILL + "::test_a_volume_that_stands_still_leaves_requests_to_the_others",)),
    Mutant(173, "acknowledgement", "no volume has requests of its own", FAST + "requests.pyx",
           "held < REQUESTS_OWN or held - REQUESTS_OWN < REQUESTS_SHARED - engine.shared_requests",
           "held < REQUESTS_MAX - engine.requests_used",
           (STANDSTILL + "::test_a_volume_that_stands_still_leaves_requests_to_the_others",)),
    Mutant(174, "acknowledgement", "what was sent back is overtaken", FAST + "exports.pyx",
           "request = NULL if overtakes(engine, volume, header) else request_new(engine, volume.index)",
           "request = request_new(engine, volume.index)",
           (SESSIONS + "::test_a_request_that_is_sent_back_is_not_overtaken",)),
    Mutant(175, "space", "a volume whose commits wait takes all room in the root", FAST + "root.pyx",
           "(own == 0 or coming_bytes(own + records, own_blocks + payload_blocks) <= left)", "True",
           (STANDSTILL + "::test_a_volume_that_stands_still_leaves_room_for_the_records_of_others",)),
    Mutant(184, "acknowledgement", "a write overtakes the one that our disk still reads for", FAST + "exports.pyx",
           "outruns(export, request)", "False",
           (SESSIONS + "::test_a_write_that_its_old_primary_still_reads_for_is_not_taken_for_logged",)),
    Mutant(185, "acknowledgement", "an answer is of whatever session", FAST + "exports.pyx",
           "(request.number != header.lsn or request.session != header.session)", "request.number != header.lsn",
           (SESSIONS + "::test_an_answer_is_not_taken_for_one_to_an_older_session",)),
    Mutant(186, "acknowledgement", "a client that stands still keeps what it was lent", FAST + "engine.pyx",
           "not here.up or here.lent == 0", "not here.up or here.lent == 0 or here.node >= 16",
           (STANDSTILL + "::test_a_client_that_stands_still_takes_no_requests_with_it",)),
    Mutant(193, "acknowledgement", "the next session has the export's id of the one before", FAST + "exports.pyx",
           "export.generation = (export.generation + 1) % EXPORT_GENERATIONS", "pass",
           ("tests/test_volume.py::test_the_id_of_a_session_that_is_over_is_not_served_by_the_next",
            "tests/nbd/test_handshake.py::test_a_connection_of_a_session_that_is_over_is_refused_whoever_has_its_place"),
           seeds=False),
    # ----------------------------------------------------------------------------- resync
    Mutant(109, "resync", "a joiner flushes what it has, not what it was asked about", FAST + "replica.pyx",
           "kind == BARRIER_JOIN and volume.last_lsn < volume.join_lsn", "False",
           (RESYNC + "::test_a_joiner_flushes_all_that_it_was_asked_about",), rule="R-flushed"),
    Mutant(111, "resync", "a joiner that flushed less than is committed may join", FAST + "primary.pyx",
           "member.acked_lsn < volume.commit_lsn", "False",
           (RESYNC + "::test_a_joiner_flushes_all_that_it_was_asked_about",), rule="R-flushed"),
    Mutant(80, "resync", "do not note what changed while a copy is away", FAST + "volume.pyx",
           "state = mark_changed(engine, volume, entry.lba, entry.blocks, entry.lsn)", "state = LOOKUP_OK",
           (RESYNC + "::test_a_copy_whose_end_lies_before_the_youngest_bitmap_gets_all_that_it_lacks",)),
    Mutant(81, "resync", "take a change bitmap that begins too late", FAST + "primary.pyx",
           "volume.changes[i].base_lsn <= member.common_lsn", "True", (RESYNC + "::test_a_copy_whose_end_lies_before_the_youngest_bitmap_gets_all_that_it_lacks",)),
    Mutant(82, "resync", "commit what is newer than a copy before the copy", FAST + "replica.pyx",
           "min(volume.known_commit, volume.copies_commit_lsn) if volume.copies_unapplied else volume.known_commit",
           "volume.known_commit", (RESYNC + "::test_a_block_that_changes_while_it_is_copied_is_the_newer_one",)),
    Mutant(83, "resync", "trust an epoch that died before its records were adopted", POLICY + "membership.py",
           "entry.epoch > last_epoch or entry.dead", "entry.epoch > last_epoch", (MEMBERSHIP, TRANSCRIPTS)),
    Mutant(84, "resync", "resume a member whose copy is incomplete", POLICY + "leadership.py",
           'if event.learning:\n    return "its copy is incomplete"', "pass", (TRANSCRIPTS,)),
    Mutant(87, "resync", "resume a member whose log is longer than ours", POLICY + "leadership.py",
           "event.last_lsn > local.last_lsn", "False", (TRANSCRIPTS,)),
    Mutant(88, "resync", "copy blocks as they lie, rotten or not", FAST + "transfer.pyx",
           "<uint64_t>(crcs[i] != transfer.extents[first + i].crc)", "<uint64_t>0", (REPAIR + "::test_a_block_that_is_bad_on_all_copies_but_one_comes_from_that_one",)),
    Mutant(89, "resync", "a learner has caught up though its last copies are under way", FAST + "primary.pyx",
           "copies_flying(member) == 0", "True", (RESYNC + "::test_the_join_waits_for_the_last_copy",),
           rule="R-caught-up"),
    Mutant(119, "resync", "take the copies that come, whichever were lost", FAST + "learner.pyx",
           "header.lsn != volume.copies_taken + 1", "False", (RESYNC + "::test_a_copy_that_is_lost_on_its_way_comes_again",)),
    Mutant(126, "resync", "take a copy that is older than what is committed", FAST + "learner.pyx",
           "header.commit < volume.commit_lsn", "False", (RESYNC + "::test_a_copy_that_newer_records_overtook_is_not_taken",)),
    Mutant(118, "resync", "a heartbeat begins a session", FAST + "replica.pyx",
           "if volume.heard and (header.extra <= volume.last_lsn or volume.inbox != NULL):\n"
           "    volume.heard_ns = engine.now_ns",
           "if not volume.missing and (header.extra <= volume.last_lsn or volume.inbox != NULL):\n"
           "    volume.heard = True\n"
           "    volume.heard_ns = engine.now_ns",
           (RESYNC + "::test_a_copy_that_misses_the_begin_of_its_session_asks_again",)),
    Mutant(127, "resync", "a member that is full does not hear that its records are committed", FAST + "stream.pyx",
           "min(heard, volume.last_lsn)", "<uint64_t>0",
           (WINDOWS + "::test_a_member_that_is_full_of_uncommitted_records_learns_that_they_are_committed",)),
    Mutant(128, "resync", "clients' records fill what the next epoch's first needs", FAST + "records.pyx",
           "PENDING_RECORDS - (0 if control else CONTROL_RECORDS)", "PENDING_RECORDS",
           (WINDOWS + "::test_a_log_full_of_uncommitted_records_has_room_for_the_next_epoch",)),
    Mutant(134, "resync", "what a pull lacked is still lacking in the session that follows", FAST + "replica.pyx",
           "volume.missing = 0                         # and what a pull lacked comes now, or is asked for", "pass",
           (PULLS + "::test_what_a_pull_lacked_is_asked_of_the_primary_that_comes",)),
    Mutant(135, "resync", "a record that comes again is taken in silence", FAST + "stream.pyx",
           "volume.told_ack_lsn = UNTOLD                # it comes again because our word did not count: say it again", "pass",
           (RESYNC + "::test_a_record_that_comes_again_is_acknowledged_again",)),
    Mutant(136, "resync", "a copy that returns hears nothing, where nothing was ever committed", FAST + "primary.pyx",
           "volume.told_commit_lsn = UNTOLD        # to it, and that its session began", "volume.told_commit_lsn = 0",
           (RESYNC + "::test_a_copy_that_returns_with_all_there_is_hears_that_its_session_begins",)),
    Mutant(137, "resync", "go on alone without a record that no disk gives back", POLICY + "leadership.py",
           "return event.node in self.installed and not any(\n"
           "    node != event.node and node in here.peers for node in self.installed)", "return False",
           (TRANSCRIPTS,)),
    Mutant(138, "acknowledgement", "write a part of a block for an attach that is over", FAST + "service.pyx",
           "request.state == REQUEST_PARKED and request.session < volume.session", "False",
           (PROMISES + "::test_a_part_of_a_block_is_not_written_for_an_attach_that_is_over",)),
    Mutant(139, "acknowledgement", "complete a block with what an earlier primary knew of it", FAST + "service.pyx",
           "request.flags |= REQUEST_AGAIN\n"
           "queue_push(&volume.merging, request)", "queue_push(&volume.merging, request)",
           (PROMISES + "::test_a_part_of_a_block_is_written_by_who_leads_when_the_rest_is_known",)),
    # ----------------------------------------------------------------------------- repair
    Mutant(120, "repair", "take any content for a bad block", FAST + "repair.pyx",
           "any_content or header.extra == repair.extent.crc", "True", (REPAIR + "::test_content_with_another_checksum_is_not_taken",)),
    Mutant(121, "repair", "give a block of an older commit", FAST + "transfer.pyx",
           "volume.commit_lsn < header.commit", "False", (REPAIR + "::test_a_copy_that_has_committed_less_gives_no_block",)),
    Mutant(122, "repair", "a lost block reads as zeros", FAST + "service.pyx",
           "is_lost(location)", "False", (REPAIR + "::test_a_lost_map_page_of_a_single_copy_is_an_error_of_its_blocks",)),
    Mutant(123, "repair", "a lost map page reads as zeros", FAST + "pages.pyx",
           "entries[i].location = LOCATION_LOST", "pass", (REPAIR + "::test_a_lost_map_page_comes_back_from_another_copy",)),
    Mutant(124, "repair", "a lost change bitmap says that nothing changed", FAST + "pages.pyx",
           "bits[i >> 3] |= <uint8_t>(1 << (i & 7))", "pass", (REPAIR + "::test_a_lost_change_bitmap_says_that_everything_changed",)),
    Mutant(125, "repair", "what lived in the segments is not counted anew", FAST + "pages.pyx",
           "engine.store.recount = True", "pass", (REPAIR + "::test_a_lost_map_page_comes_back_from_another_copy",)),
    Mutant(129, "repair", "a copy that returns drops what nobody else has", FAST + "volume.pyx",
           "return apply_copy(engine, volume, record, &crc, own.location)", "return apply_copy(engine, volume, record, &crc, record.source)",
           (REPAIR + "::test_a_learner_keeps_a_block_that_its_primary_lost_and_gives_it_back",)),
    # ------------------------------------------------------------------ everything comes anew
    Mutant(177, "repair", "a copy that is copied anew drops what it has first", FAST + "learner.pyx",
           "volume.marked_batch = 0",
           "if header.commit == 0:\n"
           "    record = batch_add(batch.buffer)\n"
           "    record.volume = volume.index\n"
           "    record.operation = OP_COPY_HOLE\n"
           "    record.blocks = <uint32_t>volume.size_blocks\n"
           "    record.lsn = header.lsn\n"
           "    copy_logged(volume, header.lsn)\n"
           "volume.marked_batch = 0",
           (FULL + "::test_a_block_that_its_primary_lost_comes_back_from_a_copy_that_is_copied_anew",)),
    Mutant(178, "resync", "a hole needs no word when everything comes anew", FAST + "resync.pyx",
           "kind == OP_COPY", "kind == OP_COPY or (kind == OP_COPY_HOLE and member.copy_full and not member.copy_data)",
           (FULL + "::test_a_block_that_its_primary_lost_comes_back_from_a_copy_that_is_copied_anew",), rule="R-void"),
    Mutant(179, "space", "copy in the order of the volume, room or not", FAST + "resync.pyx",
           "takes_room == member.copy_data", "member.copy_data",
           (FULL + "::test_a_copy_comes_back_to_a_store_without_room_for_old_and_new",)),
    Mutant(180, "resync", "an unfinished session's base outlives one that shares nothing", FAST + "volume.pyx",
           "record.lba < volume.learn_base", "False",
           (FULL + "::test_a_copy_that_shares_nothing_shares_nothing_after_half_of_it_was_copied",), rule="R-void"),
    Mutant(181, "resync", "a copy that shares nothing shares all after half of it was copied", POLICY + "leadership.py",
           "min(common_lsn, event.learn_base) or None", "min(common_lsn, event.learn_base)",
           (FULL + "::test_a_copy_that_shares_nothing_shares_nothing_after_half_of_it_was_copied",), rule="R-void"),
    Mutant(182, "resync", "take a copy without the records before it", FAST + "learner.pyx",
           "header.commit > volume.last_lsn", "False",
           (FULL + "::test_a_copy_of_a_block_without_the_records_before_it_is_not_taken",)),
    Mutant(183, "repair", "have a learner wait for what it is to have replaced", FAST + "transfer.pyx",
           "header.flags & LEARNING_FLAG != 0", "False",
           (FULL + "::test_bad_blocks_that_are_to_be_replaced_hold_nothing_up",)),
    Mutant(187, "repair", "take a block that is fetched without the records before it", FAST + "repair.pyx",
           "(any_content and header.commit > volume.last_lsn)", "False",
           (FULL + "::test_a_block_that_is_fetched_without_the_records_before_it_is_not_taken",)),
    # ----------------------------------------------------------------------- coordination
    Mutant(130, "coordination", "swap without comparing, in memory", COORDINATION + "memory.py",
           "expected_revision != (ABSENT if present is None else present.revision)", "False", (CONFORMANCE,)),
    Mutant(131, "coordination", "swap without comparing, in sqlite", COORDINATION + "sqlite.py",
           "return self._write(_REPLACE, (bytes(value), key, expected_revision))",
           "present = self.get(key)\n"
           "return self._write(_REPLACE, (bytes(value), key, present.revision if present else ABSENT))",
           (CONFORMANCE,), seeds=False),
    Mutant(132, "coordination", "a watcher looks away for ever", COORDINATION + "sqlite.py",
           "self._local.quiet_at = seen if not rows else None",
           "self._local.quiet_at = (version, getattr(self._local, 'own_changes', 0), after_revision + len(rows))",
           (CONFORMANCE,), seeds=False),
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
