"""Xids by NVIDIA's catalogue: the tables, and what events make of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import data_tables
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import kernel_log, xids
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.xids import Action, Cause, LookAt

FIXTURES = Path(__file__).parents[2] / "fixtures"
ROWS = data_tables.read("xids")
NVLINK5 = data_tables.read("nvlink5_xids")
CATALOGUE = xids.parse(ROWS, NVLINK5)


def assessed(*lines: str) -> dict[int, xids.Seen]:
    events = kernel_log.parse_xids([(float(at), line) for at, line in enumerate(lines)])
    return {seen.code: seen for seen in xids.assess(events, CATALOGUE)}


def captured(name: str) -> list[str]:
    return (FIXTURES / name).read_text().splitlines()


def test_every_row_has_a_source_and_a_confidence() -> None:
    assert len(CATALOGUE.rows) == len(ROWS)
    assert len(CATALOGUE.nvlink5) == len(NVLINK5)
    for row in (*ROWS, *NVLINK5):
        assert row["source"].startswith("https://docs.nvidia.com/")
        assert row["confidence"] in ("low", "medium", "high")
    assert {row.cause for row in CATALOGUE.rows.values()} == set(Cause)
    assert {row.action for row in CATALOGUE.rows.values()} == set(Action)


def test_every_code_of_nvlink_5_is_decoded_without_two_meanings() -> None:
    assert {decode.code for decode in CATALOGUE.nvlink5} == set(xids.NVLINK5)
    seen = set()
    for decode in CATALOGUE.nvlink5:
        assert len(decode.intrinfo) == 2
        for unit in decode.units:
            for status in decode.errors:
                key = (decode.code, unit, decode.intrinfo, status)
                assert key not in seen
                seen.add(key)


@pytest.mark.parametrize(
    ("change", "error"),
    [({"kind": "Zid"}, "kind 'Zid'"), ({"cause": "weather"}, "weather"), ({"action": "pray"}, "pray")],
)
def test_a_row_of_nonsense_is_refused(change: dict[str, str], error: str) -> None:
    with pytest.raises(ValueError, match=re.escape(error)):
        xids.parse([{**ROWS[0], **change}])


X = "NVRM: Xid (PCI:0000:19:00): "


@pytest.mark.parametrize(
    ("message", "cause", "action", "fails"),
    [
        (f"{X}13, pid=7, name=python, Graphics SM Warp Exception", Cause.APPLICATION, Action.RESTART_PROCESS, False),
        (f"{X}31, pid=7, name=python, MMU Fault", Cause.APPLICATION, Action.RESTART_PROCESS, False),
        (f"{X}43, pid=7, name=python, Ch 00000008", Cause.APPLICATION, Action.IGNORE, False),
        (
            f"{X}48, pid='<unknown>', name=<unknown>, An uncorrectable double bit error",
            Cause.HARDWARE,
            Action.RESET,
            True,
        ),
        (f"{X}63, Row Remapper: New row marked for remapping", Cause.HARDWARE, Action.IGNORE, False),
        (f"{X}79, GPU has fallen off the bus.", Cause.HARDWARE, Action.REBOOT, True),
        (f"{X}94, pid=1234, name=python3, Contained ECC error", Cause.HARDWARE, Action.RESTART_PROCESS, False),
        (f"{X}109, pid=7, name=pt_main_thread, errorString CTX SWITCH TIMEOUT", Cause.DRIVER, Action.RESET, True),
        (f"{X}119, pid=7, name=nvidia-smi, Timeout waiting for RPC from GSP0!", Cause.DRIVER, Action.RESET, True),
        (f"{X}54, ", Cause.HARDWARE, Action.REPLACE, True),
        (f"{X}999, something of tomorrow", None, Action.RESET, True),
        ("NVRM: Xid (0000:01:00): 31, Ch 0000000b", Cause.APPLICATION, Action.RESTART_PROCESS, False),
        ("nvidia-nvswitch0: SXid (PCI:0000:cb:00.0): 23001, Fatal, Link 12", None, Action.RESET, True),
        ("nvidia-nvswitch0: SXid (PCI:0000:cb:00.0): 12028, Non-fatal, Link 32", None, Action.IGNORE, False),
        ("nvidia-nvswitch0: SXid (PCI:0000:cb:00.0): 22013, Severity 0 Engine instance 43", None, Action.IGNORE, False),
        ("nvidia-nvswitch0: SXid (PCI:0000:cb:00.0): 22013, Severity 1 Engine instance 43", None, Action.RESET, True),
    ],
)
def test_who_caused_it_and_what_ends_it(message: str, cause: Cause | None, action: Action, fails: bool) -> None:
    (seen,) = assessed(message).values()
    assert (seen.row.cause if seen.row else None, seen.action, seen.fails) == (cause, action, fails)


def test_nvlink_5_by_its_registers() -> None:
    seen = assessed(*captured("kernel/nvlink5-leptonai-gpud-1174"))
    assert (seen[149].action, set(seen[149].look_at)) == (Action.RESET, {LookAt.OTHERS, LookAt.PEER})
    assert not seen[145].fails
    assert not seen[94].fails


def nvlink(unit: str, severity: str, intrinfo: int, status: int, code: int = 145) -> str:
    return f"{X}{code}, {unit} {severity} XC0 i0 Link 03 ({intrinfo:#010x} {status:#010x} 0x0 0x0 0x0 0x0)"


@pytest.mark.parametrize(
    ("line", "action"),
    [
        (nvlink("RLW_SRC_TRACK", "Nonfatal", 0x040988E2, 0x8), Action.IGNORE),
        pytest.param(nvlink("RLW_SRC_TRACK", "Fatal", 0x040988E2, 0x1), Action.RESET, id="status asks for a reset"),
        pytest.param(
            nvlink("RLW_SRC_TRACK", "Nonfatal", 0x040988E2, 0x3), Action.RESET, id="two bits, the worse counts"
        ),
        pytest.param(nvlink("RLW_SRC_TRACK", "Nonfatal", 0x00000007, 0x2), Action.IGNORE, id="the second layout"),
        pytest.param(nvlink("RLW_OF_TOMORROW", "Nonfatal", 0x0, 0x1), Action.IGNORE, id="unknown unit, non-fatal"),
        pytest.param(nvlink("RLW_OF_TOMORROW", "Fatal", 0x0, 0x1), Action.RESET, id="unknown unit, fatal"),
        pytest.param(
            nvlink("NETIR_LINK_EVT", "Fatal", 0x026001C6, 0x0, 149), Action.RESET, id="fatal, and the table says ignore"
        ),
        pytest.param(f"{X}145, words without registers", Action.RESET, id="no registers"),
    ],
)
def test_registers(line: str, action: Action) -> None:
    (seen,) = assessed(line).values()
    assert seen.action is action


@pytest.mark.parametrize(
    ("number", "said", "action"),
    [
        (0, "None", Action.IGNORE),
        (1, "GPU Reset Required", Action.RESET),
        (1, "PF FLR", Action.RESET),
        (2, "Node Reboot Required", Action.REBOOT),
        (2, "OS Reboot", Action.REBOOT),
        (4, "Drain and Reset", Action.RESET),
        (9, "something of tomorrow", Action.RESET),
    ],
)
def test_xid_154_carries_its_action(number: int, said: str, action: Action) -> None:
    (seen,) = assessed(f"{X}154, GPU recovery action changed from 0x0 (None) to {number:#x} ({said})").values()
    assert seen.action is action


def test_the_last_recovery_action_of_a_gpu_counts() -> None:
    asked = f"{X}154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"
    over = f"{X}154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"
    assert not assessed(asked, over)[154].fails
    assert assessed(over, asked)[154].fails


def test_the_worst_of_several_severities_counts_and_names_its_gpu() -> None:
    mild = nvlink("RLW_SRC_TRACK", "Nonfatal", 0x040988E2, 0x8)
    worse = nvlink("RLW_SRC_TRACK", "Fatal", 0x040988E2, 0x1).replace("0000:19:00", "0000:9b:00")
    for lines in ((mild, worse, mild), (worse, mild, mild)):
        seen = assessed(*lines)[145]
        assert [event["device"] for event in seen.worst] == ["0000:9b:00"]
        assert [(event["device"], event["count"]) for event in seen.others] == [("0000:19:00", 2)]
        assert seen.fails
