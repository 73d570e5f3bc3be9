"""The simulated network: order, delay, breaks and cuts, as an engine sees them."""
from random import Random

import pytest

from repstore.sim.clock import VirtualClock
from repstore.sim.network import SimulatedNetwork


class Told:
    """A peer that writes down what it is told; every message is a frame but b"garbage"."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.said: list[tuple[object, ...]] = []

    def link_up(self, link: int, kind: int) -> None:
        self.said.append(("up", link, kind))

    def link_down(self, link: int) -> None:
        self.said.append(("down", link))

    def sent(self, link: int, token: int) -> None:
        self.said.append(("sent", link, token))

    def received(self, link: int, data: bytes) -> bool:
        self.said.append(("received", link, data))
        return data != b"garbage"

    def messages(self) -> list[object]:
        return [what[2] for what in self.said if what[0] == "received"]


class Pair:
    """Two peers with a connection."""

    def __init__(self, seed: int = 1) -> None:
        self.clock = VirtualClock()
        self.network = SimulatedNetwork(self.clock, Random(seed))
        self.near, self.far = Told("near"), Told("far")
        assert self.network.connect(self.near, self.far)
        self.settle()

    def settle(self) -> None:
        while self.clock.step(self.clock.now_ns + 10**9):
            pass


def test_both_sides_are_told_of_a_connection_and_of_its_end() -> None:
    pair = Pair()
    pair.network.close(pair.near, 0)
    pair.settle()
    assert pair.near.said == [("up", 0, 3), ("down", 0)]
    assert pair.far.said == [("up", 0, 1), ("down", 0)]
    assert pair.network.connect(pair.far, pair.near)          # the numbers are free again
    pair.settle()
    assert pair.far.said[-1] == ("up", 0, 3)


def test_messages_arrive_in_order_and_are_answered() -> None:
    pair = Pair()
    for token in range(1, 50):
        pair.network.send(pair.near, 0, token, b"%d" % token)
    pair.settle()
    assert pair.far.messages() == [b"%d" % token for token in range(1, 50)]
    assert pair.near.said[1:] == [("sent", 0, token) for token in range(1, 50)]


def test_nothing_arrives_before_the_connection_is_up() -> None:
    for seed in range(50):
        pair = Pair(seed)
        third = Told("third")
        pair.network.connect(pair.near, third)
        pair.network.send(pair.near, 1, 0, b"first")
        pair.settle()
        assert third.said == [("up", 0, 1), ("received", 0, b"first")]


def test_there_is_one_connection_of_a_pair() -> None:
    pair = Pair()
    assert not pair.network.connect(pair.near, pair.far)


def test_what_is_cut_off_waits_until_it_is_healed() -> None:
    pair = Pair()
    pair.network.cut("near", "far")
    pair.network.send(pair.near, 0, 1, b"there")
    pair.network.send(pair.far, 0, 0, b"back")
    pair.settle()
    assert pair.far.messages() == []
    assert pair.near.messages() == [b"back"]
    assert not pair.network.connect(pair.near, Told("far"))
    pair.network.heal()
    pair.settle()
    assert pair.far.messages() == [b"there"]


def test_who_holds_a_link_is_told_nothing_until_it_goes_on() -> None:
    pair = Pair()
    pair.network.hold(pair.far, 0, True)
    pair.network.send(pair.near, 0, 0, b"later")
    pair.settle()
    assert pair.far.messages() == []
    pair.network.hold(pair.far, 0, False)
    pair.settle()
    assert pair.far.messages() == [b"later"]


def test_every_token_is_answered_before_the_link_is_down() -> None:
    for seed in range(50):
        pair = Pair(seed)
        for token in range(1, 20):
            pair.network.send(pair.near, 0, token, b"%d" % token)
        pair.network.drop("near", "far")
        pair.settle()
        assert [what[2] for what in pair.near.said if what[0] == "sent"] == list(range(1, 20))
        assert pair.near.said[-1] == ("down", 0)
        arrived = pair.far.messages()
        assert arrived == [b"%d" % token for token in range(1, len(arrived) + 1)]


def test_a_send_on_a_link_that_is_gone_is_answered() -> None:
    pair = Pair()
    pair.network.send(pair.near, 7, 99, b"nowhere")
    pair.network.send(pair.near, 7, 0, b"nowhere")
    pair.settle()
    assert pair.near.said[1:] == [("sent", 7, 99)]


def test_a_dead_process_is_told_nothing_and_its_peer_learns_of_it() -> None:
    pair = Pair()
    pair.network.send(pair.near, 0, 1, b"last words")
    pair.near.alive = False
    pair.network.crash(pair.near)
    pair.settle()
    assert pair.near.said == [("up", 0, 3)]
    assert pair.far.said[-1] == ("down", 0)


@pytest.mark.fault("network: a damaged frame", promise="the connection is broken, the frame is not used")
def test_a_message_that_is_no_frame_breaks_the_connection() -> None:
    pair = Pair()
    pair.network.send(pair.near, 0, 0, b"garbage")
    pair.network.send(pair.near, 0, 0, b"more")
    pair.settle()
    assert pair.far.said[-2:] == [("received", 0, b"garbage"), ("down", 0)]
    assert pair.near.said[-1] == ("down", 0)
