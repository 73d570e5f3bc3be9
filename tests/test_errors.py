"""The exception tree: what its docstring draws is what there is, and each has an errno."""
import errno
import inspect
import re

import pytest

from repstore import errors

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)
           if issubclass(kind, errors.RepstoreError)]


def test_the_docstring_draws_every_class() -> None:
    drawn = re.findall(r"^ +(?:\+-- )?(\w+Error) +\w", errors.__doc__ or "", re.MULTILINE)
    assert set(drawn) == {kind.__name__ for kind in CLASSES}


@pytest.mark.parametrize("kind", CLASSES)
def test_each_has_an_errno_a_client_can_be_given(kind: type[errors.RepstoreError]) -> None:
    error = kind("disk", "1", "2") if kind is errors.CorruptionError else kind("text")
    assert error.errno in errno.errorcode
    assert str(error)


def test_corruption_says_where_and_what() -> None:
    error = errors.CorruptionError("store, block 7", "crc 1", "crc 2")
    assert (error.where, error.expected, error.found) == ("store, block 7", "crc 1", "crc 2")
    assert str(error) == "store, block 7: expected crc 1, found crc 2"


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind not in (
    errors.RepstoreError, errors.ConfigError, errors.CorruptionError)])
def test_an_errno_leads_back_to_its_class(kind: type[errors.RepstoreError]) -> None:
    error = errors.error_from_errno(kind.default_errno, "write of 4096 bytes at 0")
    assert type(error) is kind
    assert error.errno == kind.default_errno
    assert "write of 4096 bytes at 0" in str(error)


def test_an_io_error_is_about_these_blocks_and_others_are_just_reported() -> None:
    assert isinstance(errors.error_from_errno(errno.EIO, "read"), errors.CorruptionError)
    assert type(errors.error_from_errno(errno.ENOMEM, "read")) is errors.RepstoreError
    assert errors.error_from_errno(99999, "read").errno == 99999
