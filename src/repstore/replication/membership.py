"""How a volume's config may change: pure functions from one config to the next.

Nobody writes a VolumeConfig that did not come out of here. Each function takes the
config that was read and returns the one to swap in, or None where a rule forbids it.

  R-eject  a member leaves only by a swap, before anything is acknowledged without it, and
           never below min_copies, unless it is back and must learn anyway
  R-join   a joiner enters with the boot it had when it said "flushed"
  R-taint  a member whose boot is not the one in the config may have lost what was not
           flushed: it does not lead while a clean member exists; if there is none,
           the incarnation grows and the sessions of the old one end: the new primary is
           given a higher session, so it refuses them itself, whatever their nodes know by then
"""
from __future__ import annotations

from collections.abc import Container

from msgspec.structs import replace

from repstore import config
from repstore.replication.volume_config import (
    Attach,
    Lineage,
    Member,
    NodeId,
    VolumeConfig,
)


def is_tainted(volume: VolumeConfig, node: NodeId, boot_id: str) -> bool:
    """Whether an in-sync member may lack acknowledged writes. Before epoch 1 none exist."""
    member = volume.member(node)
    return volume.epoch > 0 and (member is None or member.boot_id != boot_id)


def rebooted(volume: VolumeConfig, node: NodeId, boot_id: str) -> VolumeConfig:
    """With the boot that this member has now, and nothing of what it had is gone."""
    return replace(volume, in_sync=tuple(
        replace(member, boot_id=boot_id) if member.node == node else member for member in volume.in_sync))


def ejected(volume: VolumeConfig, nodes: tuple[NodeId, ...],
            unfit: Container[NodeId] = ()) -> VolumeConfig | None:
    """Without as many of `nodes` as min_copies allows, first ones first; None: nobody.

    The `unfit` are back and said that their copy cannot go on: they leave even below
    min_copies, for only out of the set can they learn (nothing is acknowledged meanwhile).
    """
    remaining = list(volume.in_sync)
    for node in nodes:
        member = volume.member(node)
        if member in remaining and node != volume.primary and \
                (node in unfit or len(remaining) > volume.min_copies):
            remaining.remove(member)
    if len(remaining) == len(volume.in_sync):
        return None
    return replace(volume, in_sync=tuple(remaining))


def joined(volume: VolumeConfig, member: Member) -> VolumeConfig | None:
    """With `member` in the in-sync set; None when there is no place for it."""
    if member.node not in volume.placement or volume.member(member.node) is not None:
        return None
    return replace(volume, in_sync=(*volume.in_sync, member))


def promoted(volume: VolumeConfig, epoch: int, leader: NodeId, members: tuple[Member, ...],
             last_lsn: int, last_epoch: int, *, tainted: bool) -> VolumeConfig:
    """The first config of a new epoch, led by `leader`, one of `members`.

    Its log ends at `last_lsn`, assigned by `last_epoch`: later epochs died before anybody
    who is left had a record of theirs, and are marked so.
    """
    assert epoch > volume.epoch
    assert any(member.node == leader for member in members)
    older = tuple(replace(entry, dead=entry.dead or entry.epoch > last_epoch)
                  for entry in volume.lineage)
    begun = Lineage(epoch, last_lsn + 1, lossy=tainted)
    lineage = (*older, begun)[-config.LINEAGE_ENTRIES_MAX:]
    session = volume.last_session + tainted
    attach = None if volume.attach is None else replace(volume.attach, session=session)
    return replace(volume, epoch=epoch, primary=leader, in_sync=members, lineage=lineage,
                   incarnation=volume.incarnation + tainted, attach=attach, last_session=session)


def attached(volume: VolumeConfig, client: str, token: str, boot_id: str) -> VolumeConfig:
    """With a new session for `client`; whoever was attached before is refused from then on."""
    session = volume.last_session + 1
    attach = Attach(session, client, token, boot_id, volume.incarnation)
    return replace(volume, attach=attach, last_session=session)


def detached(volume: VolumeConfig) -> VolumeConfig:
    """With nobody attached."""
    return replace(volume, attach=None)


def session_is_lost(volume: VolumeConfig, client: str, boot_id: str) -> bool:
    """Whether this client's host may still cache writes that an older incarnation lost.

    NBD clients reconnect by name and go on silently, so such a host is refused until a
    detach is recorded or it booted again (its caches died with it).
    """
    attach = volume.attach
    return (attach is not None and attach.client == client and attach.boot_id == boot_id
            and attach.incarnation != volume.incarnation)


def common_lsn(volume: VolumeConfig, newest_lsn: int, last_epoch: int,
               last_lsn: int) -> int | None:
    """Newest LSN up to which a returning copy's log is ours, or None if that is unknown.

    Only the primary of an epoch assigns its LSNs, so both logs agree up to the end of the
    copy's last epoch in our lineage; and if that epoch is dead, only up to its beginning.
    A lineage cut short tells nothing about older epochs, and where a tainted copy led on the
    one that returns may have committed what that one lost: its map differs, not only its log.
    """
    if last_lsn == 0:
        return 0
    if not volume.lineage or last_epoch < volume.lineage[0].epoch:
        return None
    common = min(last_lsn, newest_lsn)
    for entry in reversed(volume.lineage):
        if entry.epoch > last_epoch or entry.dead:
            if entry.lossy and last_lsn >= entry.first_lsn:
                return None
            common = min(common, entry.first_lsn - 1)
        else:
            break                      # the copy's log and ours both come from this epoch
    return common
