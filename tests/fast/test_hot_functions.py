"""Law 1, in the generated C: what moves bytes never calls into Python.

  1. In the modules of the data plane *every* C function is free of the Python C API, but for
     the few named in MAY_CALL_PYTHON: they run before the loop does, or beside it.
  2. The functions of the I/O path are named in HOT, so that this test notices when one is
     renamed, or turned into something that it does not find.
"""
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

GENERATED = Path(__file__).resolve().parents[2] / "build/cython"

HOT = {
    "repstore._fast.service": (
        "service_submit", "start_read", "issue_reads", "read_run", "service_read_done", "read_part_done",
        "bad_block", "start_again", "waits_for_repair",
        "start_write", "log_write", "log_range", "start_merge", "merge_done", "log_merged", "start_flush",
        "service_progress", "retry_parked"),
    "repstore._fast.records": ("add_record", "reserve_record"),
    "repstore._fast.log": (
        "log_reserve", "open_batch", "log_close", "log_written", "log_next_completed", "log_applied",
        "log_unlend", "batch_location"),
    "repstore._fast.batch": ("batch_begin", "batch_fits", "batch_add", "batch_next_payload", "batch_finish"),
    "repstore._fast.volume": (
        "volume_lookup", "volume_apply", "volume_commit", "volume_set_range", "mark_changed", "pend",
        "session_seen", "session_mark", "record_chain", "apply_move", "apply_copy"),
    "repstore._fast.engine": (
        "engine_begin", "engine_turn", "engine_disk_done", "engine_sent", "engine_frame", "engine_stream",
        "store_round", "apply_completed", "close_batches", "issue_flush", "flush_done"),
    "repstore._fast.primary": (
        "primary_announce", "announce_run", "primary_step", "primary_frame", "acknowledged", "heartbeat",
        "ask_flush", "tell_commit", "link_member", "go_on_tail", "go_on_copying"),
    "repstore._fast.replica": (
        "replica_frame", "accept", "take_frame", "acknowledge", "replica_step", "follow_on", "grant",
        "replica_seal"),
    "repstore._fast.stream": ("stream_append", "append_record", "well_formed", "body_intact"),
    "repstore._fast.learner": ("learner_begin", "learner_copy"),
    "repstore._fast.resync": ("resync_copies", "next_changed", "next_run"),
    "repstore._fast.transfer": (
        "transfer_record", "transfer_copy", "read_blocks", "transfer_read_done", "send_piece",
        "transfer_fetch", "send_fetched", "transfers_go_on"),
    "repstore._fast.repair": (
        "repair_need", "repair_covers", "repair_answer", "repair_step", "go_on", "ask", "log_content"),
    "repstore._fast.recount": ("recount_step",),
    "repstore._fast.scrub": ("scrub_step", "scrub_page_read", "pages_checked"),
    "repstore._fast.verify": ("verify_step", "verify_frame"),
    "repstore._fast.merkle": ("merkle_take", "merkle_reach"),
    "repstore._fast.exports": (
        "export_submit", "route", "send_request", "exports_reply", "foreign_request", "foreign_done",
        "send_reply", "exports_retry", "api_request_new", "api_request_submit", "api_send"),
    "repstore._fast.calls": ("calls_pump", "start", "finished", "read_on"),
    "repstore._fast.requests": (
        "request_new", "request_finish", "request_release", "buffer_get", "buffer_put"),
    "repstore._fast.frames": ("frame_begin", "frame_send"),
    "repstore._fast.replication": ("replication_frame", "replication_step"),
    "repstore._fast.segments": ("segment_gain", "segment_lose"),
    "repstore._fast.page_tree": ("tree_page", "tree_touch"),
    "repstore._fast.pages": ("page_load", "page_loaded"),
    "repstore._fast.cleaner": ("cleaner_step", "cleaner_read_done", "move_records"),
    "repstore._fast.checkpoint": ("checkpoint_step", "checkpoint_done"),
    "repstore._fast.events": ("event_push",),
    "repstore._fast.checksum": ("crc32c", "crc32c_blocks", "crc32c_copy_block"),
    "repstore._fast.loop": ("run_rounds", "round_of_work", "take_answer", "disk_answered", "issue"),
    "repstore._fast.transport": (
        "transport_received", "transport_sent", "deliver_bytes", "deliver_frames", "transport_work"),
    "repstore._fast.uring": ("uring_wait", "uring_send"),
    "repstore._fast.threads": ("threads_wait", "threads_send", "worker", "carried_out"),
    "repstore_nbd.transmission": (
        "start", "go_on", "request_done", "gather", "answer", "transmission_writable"),
    "repstore_nbd.connection": (),
}
MAY_CALL_PYTHON = {
    "repstore._fast.loop": {"create_driver"},        # before the loop runs
    "repstore._fast.checksum": {"kernel_named"},     # what tests ask
}

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
# any name of the C API or of Cython's helpers around it; Py_ssize_t is but a number
PYTHON_NAME = re.compile(r"\b(?!Py_ssize_t\b)(?:_?Py[A-Z_]|__Pyx_)\w*")


def functions(text: str, module: str) -> Iterator[tuple[str, str]]:
    """Name and body of each C function that was a `cdef` function of the module."""
    prefix = "__pyx_f_" + "_".join(f"{len(part)}{part}" for part in module.split(".")) + "_"
    # a definition begins in the first column, and so does the brace that ends it
    definition = re.compile(
        rf"^[A-Za-z][^;{{}}#\n]*?\b{prefix}(\w+)\([^;{{}}]*\) *\{{$(.*?)^\}}", re.DOTALL | re.MULTILINE)
    for found in definition.finditer(COMMENT.sub("", text)):
        yield found[1], found[2]


def python_names(body: str) -> list[str]:
    """What a body uses of the Python C API."""
    return sorted(set(PYTHON_NAME.findall(body)))


def generated_c(module: str) -> str:
    package, _, name = module.rpartition(".")
    folder = {"repstore._fast": "src/repstore/_fast", "repstore_nbd": "bindings/nbd"}[package]
    path = GENERATED / folder / f"{name}.c"
    assert path.exists(), f"{path}: made by `make build`"
    return path.read_text()


@pytest.mark.parametrize("module", HOT)
def test_the_data_plane_never_calls_into_python(module: str) -> None:
    found = dict(functions(generated_c(module), module))
    assert [name for name in HOT[module] if name not in found] == []
    assert not MAY_CALL_PYTHON.get(module, set()) & set(HOT[module])
    calling = {name: python_names(body) for name, body in found.items() if python_names(body)}
    assert set(calling) == MAY_CALL_PYTHON.get(module, set())


def test_every_module_of_the_data_plane_is_looked_at() -> None:
    modules = {f"repstore._fast.{path.stem}" for path in (GENERATED / "src/repstore/_fast").glob("*.c")}
    beside = {"_cyutility", "crc32c", "layout", "control", "loading", "root", "checks", "simulated",
              "inspection", "waiting"}
    # a history is judged beside the data plane, by whoever asks
    beside |= {name.rpartition(".")[2] for name in modules if ".history_" in name}
    assert modules - {f"repstore._fast.{name}" for name in beside} == {
        module for module in HOT if module.startswith("repstore._fast.")}


@pytest.mark.parametrize("planted", [
    "PyObject_CallNoArgs(__pyx_v_request);", "__Pyx_XDECREF(__pyx_t_1);", "_PyLong_Sign(__pyx_t_1);",
    "PyGILState_STATE state = __Pyx_PyGILState_Ensure();", "Py_INCREF(Py_None);",
    "__pyx_t_2 = __Pyx_PyInt_From_uint32_t (__pyx_v_request->blocks);"])
def test_a_planted_call_is_found(planted: str) -> None:
    module = "repstore._fast.service"
    text = generated_c(module)
    broken, places = re.subn(r"(fast_7service_start_write\([^;{}]*\) *\{\n)", rf"\g<1>  {planted}\n", text)
    assert places == 1
    calling = {name: python_names(body) for name, body in functions(broken, module) if python_names(body)}
    assert list(calling) == ["start_write"]
    assert calling["start_write"][0] in planted
