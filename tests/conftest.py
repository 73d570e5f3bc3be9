"""What all tests share: the markers, and hypothesis without a clock.

slow    takes more than a few seconds; not in `make check`
fault   proves what is promised under a fault; `python -m tests.faults` writes docs/faults.md from them
client  drives a real block client (fio, nbdcopy, qemu-io, ...); skipped where it is missing
"""
import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# the shared machines that run this stall at times: time is no finding of a property test
settings.register_profile("repstore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repstore")

# where these are set pytest writes whole diffs, and one of some blocks' bytes takes it hours
for name in ("CI", "BUILD_NUMBER"):
    os.environ.pop(name, None)

# a shell's background job ignores ^C, and so would every program that a test interrupts
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: more than a few seconds, not part of `make check`")
    config.addinivalue_line("markers", "client: needs a real block client installed")
    config.addinivalue_line(
        "markers", "fault(name, promise): proves what is promised; see tests/faults.py")
