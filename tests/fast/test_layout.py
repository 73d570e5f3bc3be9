"""The names and structs Python sees are those of layout.pxd, all of them, byte for byte."""
import re
from pathlib import Path

import numpy as np

from repstore._fast import layout

PXD = Path(layout.__file__).with_name("layout.pxd").read_text()
TYPES = {"uint8_t": "u1", "int32_t": "<i4", "uint16_t": "<u2", "uint32_t": "<u4", "uint64_t": "<u8"}


def declared_constants() -> dict[str, int]:
    found = re.findall(r"^    ([A-Z][A-Z0-9_]+) = (0x[0-9A-Fa-f]+|\d+)", PXD, re.MULTILINE)
    return {name: int(value, 0) for name, value in found}


def declared_structs() -> dict[str, np.dtype[np.void]]:
    structs: dict[str, np.dtype[np.void]] = {}
    struct = r"^cdef packed struct (\w+):\n((?:    .*\n|\n(?=    ))+)"
    for name, body in re.findall(struct, PXD, re.MULTILINE):
        fields: list[tuple[object, ...]] = []
        for type_name, field, count in re.findall(r"^    (\w+) (\w+)(?:\[(\d+)\])?", body, re.MULTILINE):
            if type_name == "char":
                fields.append((field, f"S{count}"))
                continue
            base = structs.get(type_name, TYPES.get(type_name))
            fields.append((field, base, int(count)) if count else (field, base))
        structs[name] = np.dtype(fields)  # type: ignore[arg-type,unused-ignore]
    return structs


def test_every_constant_is_exported_with_its_value() -> None:
    constants = declared_constants()
    assert constants["BLOCK_SIZE"] == 4096
    assert {name: getattr(layout, name) for name in constants} == constants


def test_every_struct_is_a_dtype_of_the_same_fields() -> None:
    structs = declared_structs()
    assert {"superblock_t", "volume_entry_t", "frame_header_t"} <= set(structs)
    for name, dtype in structs.items():
        assert getattr(layout, name) == dtype, name


def test_the_stub_names_what_there_is() -> None:
    stub = Path(layout.__file__).with_name("layout.pyi").read_text()
    named = set(re.findall(r"^(\w+):", stub, re.MULTILINE))
    assert named == {*declared_constants(), *declared_structs()}
