"""Xid and SXid events, from the kernel buffer and from the journal."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import kernel_log

FIXTURES = Path(__file__).parents[2] / "fixtures"


def text(name: str) -> str:
    return (FIXTURES / name).read_text()


def test_kernel_messages_and_xids() -> None:
    messages, lost = kernel_log.parse_kmsg(text("kernel/kmsg"), boot=1_000_000.0)
    assert not lost
    assert messages[2] == (1_000_061.0, messages[2][1])
    events = {(event["kind"], event["code"]): event for event in kernel_log.parse_xids(messages)}
    assert set(events) == {("Xid", 79), ("Xid", 31), ("SXid", 12028)}
    assert events["Xid", 31]["count"] == 2
    assert events["Xid", 31]["last"] == "1970-01-12T13:47:53Z"
    assert events["Xid", 79]["device"] == "0000:3b:00"
    assert events["SXid", 12028]["severity"] == "non_fatal"


def test_a_wrapped_kernel_buffer_is_noticed() -> None:
    _messages, lost = kernel_log.parse_kmsg("6,4711,123,-;first that is left", boot=0.0)
    assert lost


def test_xids_from_the_journal() -> None:
    events = kernel_log.parse_xids(kernel_log.parse_journal(text("kernel/journal-short-unix")))
    assert [(event["kind"], event["code"], event["count"]) for event in events] == [("SXid", 20009, 1), ("Xid", 79, 1)]


def test_another_reader_s_pipe_is_left_alone(tmp_path: Path) -> None:
    """A /dev/kmsg that is not the kernel's device must not be read: somebody else waits for what is in it."""
    (tmp_path / "dev").mkdir()
    os.mkfifo(tmp_path / "dev/kmsg")
    events = kernel_log.xids(tmp_path, lambda _argv, _deadline: CommandResult(0, text("kernel/journal-short-unix")))
    assert [event["code"] for event in events] == [20009, 79]
