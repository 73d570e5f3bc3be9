"""Stores of every format version that there was open, hold what they held, and are whole. See `golden`."""
import pytest

from repstore.check.findings import Report
from repstore.check.fsck import check_device
from repstore.sim.local import LocalVolume, PlainDisk
from repstore.store import superblock
from repstore.store.device import MemoryDevice
from tests.store.golden import VERSION, Golden, load

IMAGES = {f"{golden.version} {golden.name}": golden for golden in load()}


def test_the_present_format_has_golden_images() -> None:
    assert {f"{VERSION} clean", f"{VERSION} killed", f"{VERSION} member"} <= IMAGES.keys(), \
        f"format {VERSION} is new: run `python -m tests.store.golden` and commit what it makes"


@pytest.fixture(params=IMAGES)
def golden(request: pytest.FixtureRequest) -> Golden:
    return IMAGES[request.param]


def test_a_golden_image_is_of_its_version(golden: Golden) -> None:
    state = superblock.read(MemoryDevice(bytearray(golden.image)), golden.name).superblock
    assert f"{state.format_major}.{state.format_minor}" == golden.version


def test_a_golden_image_is_whole_and_holds_what_it_held(golden: Golden) -> None:
    image = bytearray(golden.image)
    assert_whole(image, golden.boot_id)
    volume = LocalVolume(PlainDisk(image), boot_id=golden.boot_id, life_id=99)
    assert not volume.opened.tainted
    assert volume.read_all() == golden.stamps
    volume.engine.settle(clean=True)
    assert_whole(image, golden.boot_id)


def assert_whole(image: bytearray, boot_id: bytes) -> None:
    """Every finding is a failure, data included."""
    report = Report("image")
    check_device(MemoryDevice(image), report, boot_id=boot_id, data=True)
    assert (report.verdict, report.findings) == ("clean", [])
