"""What must hold of a whole cluster, at every step and when everything is over.

A step is, for O4, whenever a node begins to lead; for the others each change of a volume's config, each
fault, and 50 ms of virtual time: to look at whole maps after each turn of an engine would be most of a run.

  O1 Every in-sync member holds everything that was flushed, power cut or not (S1 of the protocol).
  O2 Every in-sync member whose machine has not lost power since it joined holds everything that
     was acknowledged (S2).
  O3 Copies that have committed equally far have the same running hash, and their maps name the
     same checksum for every block.
  O4 In one epoch one node leads.
  O5 An incarnation ends only where power was lost, or a disk lost what it acknowledged.
  O6 At the end all copies hold the same, block by block, read from their disks by a new process;
     a block that was damaged may be missing from the copy that was struck, and a disk that loses what
     it acknowledged may have lost the end of its log, unnoticed until its node is asked.
  O7 At the end every store is whole (`check.fsck`), where no disk damaged anything, or what it damaged was
     mended (R3 of `run`); a copy of a root or a superblock may be half written.
  O8 At the end the history of what each client was told is consistent (`check.history`), where leases hold.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from repstore import errors
from repstore._fast.control import VolumeState
from repstore._fast.inspection import NOT_KNOWN, map_checksums
from repstore.check.findings import Report
from repstore.check.fsck import check_device
from repstore.format import BLOCK_SIZE
from repstore.replication.volume_config import VolumeConfig
from repstore.sim.local import LocalVolume, PlainDisk
from repstore.sim.node import NodeLife, SimulatedNode
from repstore.sim.scene import Scene
from repstore.sim.workload import FLUSH, Operation
from repstore.store.device import MemoryDevice

LIFE_OF_READER = 1
HALF_WRITTEN = {"root", "superblock"}        # findings that a kill may leave; another copy carries the store
UNREADABLE = -1


@dataclass(frozen=True, slots=True)
class Committed:
    """What the first copy that was seen to have committed so far has."""
    node: str
    chain: int
    checksums: NDArray[np.uint64]


@dataclass
class Promises:
    """How far one volume's log was acknowledged, and flushed."""
    incarnation: int = 0
    acknowledged_lsn: int = 0
    flushed_lsn: int = 0
    committed: dict[int, Committed] = field(default_factory=dict)          # by commit LSN
    leaders: dict[int, str] = field(default_factory=dict)                  # by epoch


class Oracle:
    """Watches a scene; raises AssertionError, naming what is broken."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._promises = [Promises() for _ in scene.clients]
        self._committed_when_asked: dict[int, int] = {}        # by identity of a flush under way
        for number, client in enumerate(scene.clients):
            client.on_asked = partial(self._on_asked, number)
            client.on_answered = partial(self._on_answered, number)
        self._numbers = {client.index: number for number, client in enumerate(scene.clients)}
        scene.cluster.world.on_lead = self._on_lead

    # ------------------------------------------------------------------------- every step
    def _on_asked(self, number: int, operation: Operation) -> None:
        if operation.ask.kind == FLUSH:
            self._committed_when_asked[id(operation)] = self._committed(number)

    def _on_answered(self, number: int, operation: Operation) -> None:
        """An answer without an error: what it promises holds from now on."""
        promises = self._promises[number]
        promises.acknowledged_lsn = max(promises.acknowledged_lsn, self._committed(number))
        if operation.ask.kind == FLUSH:
            flushed_lsn = self._committed_when_asked.pop(id(operation), 0)
            promises.flushed_lsn = max(promises.flushed_lsn, flushed_lsn)

    def _committed(self, number: int) -> int:
        """Commit LSN of the present primary, 0 if there is none in reach."""
        config = self._scene.cluster.volume(self._scene.plan.setup.volumes[number].name)
        life = self._scene.cluster.world.nodes[config.primary].life
        state = None if life is None else _state(life, config.index)
        leads = state is not None and state.role == "primary" and state.epoch == config.epoch
        return state.commit_lsn if state is not None and leads else 0

    def _on_lead(self, process: str, index: int, epoch: int) -> None:
        number = self._numbers[index]
        volume = self._scene.plan.setup.volumes[number]
        self._check_leader(self._promises[number], volume.name, process, epoch)

    @staticmethod
    def _check_leader(promises: Promises, volume: str, process: str, epoch: int) -> None:
        """O4."""
        leader = promises.leaders.setdefault(epoch, process)
        assert leader == process, f"{volume}: {leader} and {process} lead epoch {epoch} (O4)"

    def check(self) -> None:
        """O1 to O5, now."""
        for number, volume in enumerate(self._scene.plan.setup.volumes):
            self._check_volume(self._promises[number], self._scene.cluster.volume(volume.name))

    def _is_bad_disk(self, number: int) -> bool:
        """Whether this node's disk may have lost what it acknowledged."""
        return self._scene.damage.anywhere and number == self._scene.plan.setup.bad_disk

    def _check_volume(self, promises: Promises, config: VolumeConfig) -> None:
        damage = self._scene.damage
        if config.incarnation != promises.incarnation:
            assert damage.power_was_cut or damage.anywhere, \
                f"{config.name}: incarnation {config.incarnation}, and no power was lost (O5)"
            promises.incarnation = config.incarnation
            promises.acknowledged_lsn = promises.flushed_lsn
            promises.committed.clear()
        for node in self._scene.nodes:
            state = None if node.life is None or node.life.is_starting else _state(node.life, config.index)
            if node.life is None or state is None:
                continue
            if state.role == "primary":
                self._check_leader(promises, config.name, node.life.process_name, state.epoch)
            member = config.member(node.number)
            if member is None or member.store_uuid != node.life.store_uuid or node.life.engine.failed:
                continue
            if not self._is_bad_disk(node.number):
                clean = member.boot_id == node.life.boot_id
                self._check_member(promises, config, node.life, state, clean=clean)

    def _check_member(self, promises: Promises, config: VolumeConfig, life: NodeLife, state: VolumeState, *,
                      clean: bool) -> None:
        name = f"{config.name} on {life.name}"
        assert state.last_lsn >= promises.flushed_lsn, \
            f"{name}: its log ends at {state.last_lsn}, flushed were {promises.flushed_lsn} (O1)"
        assert not clean or state.last_lsn >= promises.acknowledged_lsn, \
            f"{name}: its log ends at {state.last_lsn}, acknowledged were {promises.acknowledged_lsn} (O2)"
        if state.epoch == config.epoch and not state.learning and state.commit_lsn == state.last_lsn:
            self._check_content(promises, life, state, name)

    def _check_content(self, promises: Promises, life: NodeLife, state: VolumeState, name: str) -> None:
        """O3."""
        checksums = np.zeros(state.size_blocks, np.uint64)
        map_checksums(life.engine, state.index, checksums)
        other = promises.committed.setdefault(state.commit_lsn, Committed(life.name, state.chain, checksums))
        assert other.chain == state.chain, f"{name}: hash {state.chain:016x} at LSN {state.commit_lsn}, " \
                                           f"{other.chain:016x} on {other.node} (O3)"
        differs = ((checksums != other.checksums) & (checksums != NOT_KNOWN)
                   & (other.checksums != NOT_KNOWN)).nonzero()[0]
        assert not differs.size, f"{name}: at LSN {state.commit_lsn} block {differs[0]} is another one " \
                                 f"than on {other.node} (O3)"

    # ----------------------------------------------------------------------------- the end
    def check_histories(self) -> None:
        """O8."""
        for volume, client in self._scene.configs():
            verdict = client.history.verdict()
            assert verdict.consistent or self._scene.plan.setup.stale_reads, \
                f"{volume.name}: {verdict.contradiction} (O8)"

    def copies_rest(self) -> bool:
        """All in-sync copies have committed all they have, equally far."""
        for volume in self._scene.plan.setup.volumes:
            config = self._scene.cluster.volume(volume.name)
            states = [self._member_state(config, node) for node in config.in_sync_nodes()]
            ends = {(state.commit_lsn, state.last_lsn) for state in states if state is not None}
            if None in states or len(ends) != 1 or any(commit != last for commit, last in ends):
                return False
        return True

    def _member_state(self, config: VolumeConfig, number: int) -> VolumeState | None:
        life = self._scene.cluster.world.nodes[number].life
        return None if life is None or life.is_starting else _state(life, config.index)

    def compare_copies(self) -> None:
        """O6 and O7, of every volume and store; afterwards no node runs."""
        found = {}
        damage = self._scene.damage
        for node in self._scene.nodes:
            if node.life is not None:
                node.kill("is killed at the end")
                if not damage.any or (damage.must_recover and not damage.anywhere):
                    _check_whole(node)
                try:
                    found[node.number] = self._read_offline(node)
                except errors.CorruptionError:
                    # its node would cut the log where the disk lost a batch, and learn the rest anew
                    if not self._is_bad_disk(node.number):
                        raise
        for number, volume in enumerate(self._scene.plan.setup.volumes):
            config = self._scene.cluster.volume(volume.name)
            for member in config.in_sync_nodes():
                if member in found and not self._is_bad_disk(member):
                    self._check_copy(number, config, member, found[member][config.index])

    def _read_offline(self, node: SimulatedNode) -> dict[int, list[int]]:
        """The stamps of all blocks of all copies on a disk, by volume index."""
        image = bytearray(node.disk.image)
        for block in node.disk.faults.unreadable:
            image[block * BLOCK_SIZE:(block + 1) * BLOCK_SIZE] = bytes(BLOCK_SIZE)
        local = LocalVolume(PlainDisk(image), boot_id=node.boot_id, life_id=LIFE_OF_READER)
        stamped_bytes = {client.index: client.block_bytes for client in self._scene.clients}
        return {index: local.read_all(index, stamped_bytes=stamped_bytes[index])
                for index in local.engine.volume_indexes()}

    def _check_copy(self, number: int, config: VolumeConfig, node: int, stamps: list[int]) -> None:
        expectation, plan = self._scene.clients[number].expectation, self._scene.plan.setup.volumes[number]
        for block, stamp in enumerate(stamps):
            if stamp == UNREADABLE and self._scene.damage.is_damaged(
                    config.index, plan.blocks_of(range(block, block + 1))):
                continue
            may = expectation.of(block)
            assert stamp in may, (f"{config.name}: block {block} of the copy on node {node} is {stamp}, "
                                  f"it may be {sorted(may)} (O6)")


def _check_whole(node: SimulatedNode) -> None:
    """O7."""
    report = Report(node.name)
    check_device(MemoryDevice(node.disk.image), report, boot_id=node.boot_id, data=True)
    findings = [str(finding) for finding in report.findings if finding.kind not in HALF_WRITTEN]
    assert not findings, f"store of {node.name} is not whole: {len(findings)} findings, {findings[0]} (O7)"


def _state(life: NodeLife, index: int) -> VolumeState | None:
    return life.engine.volume_state(index) if index in life.engine.volume_indexes() else None
