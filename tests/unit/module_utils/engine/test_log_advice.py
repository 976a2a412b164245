"""Advice from logs: every row against its own captured line, real logs, and what ended an engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lockstep.vllm.plugins.module_utils.engine import log_advice

ROOT = Path(__file__).parents[4]
FIXTURES = ROOT / "tests" / "unit" / "fixtures" / "vllm"
ROWS: list[dict[str, Any]] = yaml.safe_load((ROOT / "data" / "log_advice.yml").read_text(encoding="utf-8"))["patterns"]
KNOWN = log_advice.patterns(ROWS)


def log(name: str) -> list[str]:
    return (FIXTURES / "0.32.0" / name).read_text(encoding="utf-8").splitlines()


WORDINGS = [(row, given) for row in ROWS for given in (row, *row.get("also", []))]


@pytest.mark.parametrize(("row", "given"), WORDINGS, ids=[row["id"] for row, _ in WORDINGS])
def test_a_row_finds_its_own_lines_and_no_other_row_does(row: dict[str, Any], given: dict[str, str]) -> None:
    found = log_advice.read([given["line"]] * row.get("at_least", 1), KNOWN)
    assert [finding.id for finding in found] == [row["id"]]
    assert "{" not in found[0].finding + found[0].remediation
    assert found[0].finding.endswith(".")
    assert found[0].source
    assert given["line_from"]


CASES = FIXTURES.parent / "cases"
ADVICE = {
    "log-gloo-barrier-half-hour": ("gloo_half_hour", ["in_the_same_node_as", "vllm-same-node-barrier"]),
    "log-ib-gid-timeout": (
        "nccl_link_local_gid",
        [
            "mlx5_bond_0",
            "(Connection timed out)",
            "local GID index 1, a link-local one",
            "RoCE v2 GID",
            "NCCL_IB_GID_INDEX",
        ],
    ),
    "log-mnnvl-imex": (
        "nccl_imex",
        ["IMEX", "/dev/nvidia-caps-imex-channels", "nvidia-imex-ctl -N", "NCCL_MNNVL_ENABLE=0"],
    ),
    "log-nccl-capture-refused": (
        "nccl_capture_refused",
        ["libcuda", "LD_LIBRARY_PATH", "second NCCL", "without graphs"],
    ),
    "log-nccl-connect-wordings": ("nccl_cannot_connect", ["10.0.0.14", "No route to host"]),
    "log-nccl-last-error": ("nccl_nvls_bind", ["fabric manager", "NVSwitches", "401"]),
    "log-ptx-toolchain": ("ptx_toolchain", ["driver is older than the CUDA", "serving_runtime_lock"]),
    "log-ptxas-next-line": ("ptxas_unknown_gpu", ["sm_121a", "TRITON_PTXAS_PATH", "CUDA 13", "newer vLLM and Triton"]),
    "log-ray-memory-kill": ("ray_memory_kill", ["10.0.0.12", "memory"]),
}


@pytest.mark.parametrize(("case", "advice"), ADVICE.items(), ids=ADVICE)
def test_a_case_is_advised(case: str, advice: tuple[str, list[str]]) -> None:
    name, fragments = advice
    found = {one.id: one for one in log_advice.read((CASES / case / "engine.log").read_text().splitlines(), KNOWN)}
    said = found[name].finding + " " + found[name].remediation
    assert [each for each in fragments if each not in said] == []


def test_a_completion_from_a_link_local_gid_is_reported_as_one() -> None:
    """The second line of case log-ib-gid-timeout, where queue pairs came up and nothing went through."""
    found = log_advice.read([(CASES / "log-ib-gid-timeout/engine.log").read_text().splitlines()[1]], KNOWN)
    assert [one.id for one in found] == ["nccl_link_local_completion"]
    assert "they left mlx5_bond_0 from the link-local GID fe80::200:ff:fe00:1" in found[0].finding


@pytest.mark.parametrize(
    ("line", "why"),
    [(0, "No route to host"), (2, "No route to host"), (3, "Connection refused")],
    ids=["2.21", "2.30", "retried"],
)
def test_each_wording_of_a_refused_connection_names_peer_and_reason(line: int, why: str) -> None:
    said = (CASES / "log-nccl-connect-wordings/engine.log").read_text().splitlines()[line]
    (found,) = log_advice.read([said], KNOWN)
    assert found.finding == f"NCCL cannot connect to 10.0.0.14: {why}."


def test_a_line_that_ray_shows_once_for_several_processes_is_found() -> None:
    row = next(row for row in ROWS if row["id"] == "nccl_ib_connection")
    (found,) = log_advice.read([f"{row['line']} [repeated 7x across cluster]"], KNOWN)
    assert found.id == "nccl_ib_connection"
    assert "repeated" not in found.line


def test_rows_have_names_of_their_own() -> None:
    assert len({row["id"] for row in ROWS}) == len(ROWS)


def test_a_line_that_must_repeat_means_nothing_once() -> None:
    row = next(row for row in ROWS if row["id"] == "broadcast_waits")
    assert log_advice.read([row["line"]], KNOWN) == []
    (finding,) = log_advice.read([row["line"]] * 5, KNOWN)
    assert finding.count == 5


def test_worst_comes_first() -> None:
    lines = [row["line"] for row in ROWS for _ in range(row.get("at_least", 1))]
    levels = [finding.level for finding in log_advice.read(lines, KNOWN)]
    assert levels == sorted(levels, key=("error", "warning", "info").index)
    assert len(levels) == len(ROWS)


def test_a_real_log_of_an_engine_that_serves() -> None:
    found = {finding.id: finding.count for finding in log_advice.read(log("serves_piecewise.log"), KNOWN)}
    assert found == {"few_open_files": 1, "reverse_names_missing": 1, "onednn_fallback": 1, "tcmalloc_missing": 1}


def test_a_finding_quotes_its_line_without_colours() -> None:
    (finding,) = [
        found for found in log_advice.read(log("serves_piecewise.log"), KNOWN) if found.id == "onednn_fallback"
    ]
    assert finding.line.startswith("(RayWorkerProc pid=")


def test_nothing_is_found_in_a_log_of_nothing() -> None:
    assert log_advice.read(["INFO 11-22 01:03:30 [core.py:1] all is well", ""], KNOWN) == []


def test_rows_that_cannot_work_are_named() -> None:
    with pytest.raises(ValueError, match="log_advice row 'x'"):
        log_advice.patterns([{**ROWS[0], "id": "x", "pattern": "("}])
    with pytest.raises(ValueError, match="remediation"):
        log_advice.patterns([{name: value for name, value in ROWS[0].items() if name != "remediation"}])


def test_the_installed_table_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log_advice.json"
    assert log_advice.load(path) == ()
    path.write_text(json.dumps({"patterns": ROWS}), encoding="utf-8")
    assert [pattern.id for pattern in log_advice.load(path)] == [row["id"] for row in ROWS]
