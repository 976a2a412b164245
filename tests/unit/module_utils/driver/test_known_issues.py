"""Which known issues fit which host, and that the file of them is sound."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import data_tables
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import known_issues

ROW = {"id": "x", "severity": "suspect", "effect": "e", "remediation": "c", "source": "https://s", "confidence": "low"}
SHIPPED = data_tables.read("known_issues")


def fits(when: dict[str, Any], facts: dict[str, Any]) -> bool:
    return bool(known_issues.match([ROW | {"when": when}], facts))


@pytest.mark.parametrize(
    ("when", "facts", "fit"),
    [
        ({"driver": "550.90.07"}, {"driver": "550.90.07"}, True),
        ({"driver": "==550.90.07"}, {"driver": "550.90.7"}, True),
        ({"driver": "550.90.07"}, {"driver": "550.90.12"}, False),
        ({"nccl": ">=2.28,<2.30.4"}, {"nccl": "2.28.9"}, True),
        ({"nccl": ">=2.28,<2.30.4"}, {"nccl": "2.28"}, True),
        ({"nccl": ">=2.28,<2.30.4"}, {"nccl": "2.30.4"}, False),
        ({"nccl": ">=2.28,<2.30.4"}, {"nccl": "2.9.1"}, False),
        ({"nccl": ">=2.28"}, {"driver": "550.90.07"}, False),
        ({"nccl": ">=2.28"}, {"nccl": None}, False),
        ({"fabric_manager": "!=driver"}, {"fabric_manager": "550.90.07", "driver": "550.54.15"}, True),
        ({"fabric_manager": "!=driver"}, {"fabric_manager": "550.54.15", "driver": "550.54.15"}, False),
        ({"fabric_manager": "!=driver"}, {"fabric_manager": "550.54.15"}, False),
        ({"gpu": "h100"}, {"gpu": "NVIDIA H100 80GB HBM3"}, True),
        ({"gpu": "GB10"}, {"gpu": "NVIDIA H100 80GB HBM3"}, False),
        ({"driver": ">=545,<546", "gpu": "H100"}, {"driver": "545.23.08", "gpu": "NVIDIA H100"}, True),
        ({"driver": ">=545,<546", "gpu": "H100"}, {"driver": "545.23.08", "gpu": "NVIDIA A100"}, False),
        ({"torch": "2.13"}, {"torch": "2.13.0+cu130"}, True),
        ({"kernel": "<6.1"}, {"kernel": "5.15.0-91-generic"}, True),
    ],
)
def test_conditions(when: dict[str, Any], facts: dict[str, Any], fit: bool) -> None:
    assert fits(when, facts) is fit


@pytest.mark.parametrize(
    ("when", "fragment"),
    [
        ({"drivr": "550"}, "'drivr' is not a fact"),
        ({"driver": "~> 550"}, "cannot read the condition"),
        ({}, "no condition"),
    ],
)
def test_a_row_that_cannot_be_read_is_no_match_but_an_error(when: dict[str, Any], fragment: str) -> None:
    with pytest.raises(ValueError, match=fragment):
        fits(when, {"driver": "550.90.07"})


def test_bad_ones_come_first_and_refuse_unless_allowed() -> None:
    rows = [ROW | {"when": {"driver": ">1"}}, ROW | {"id": "b", "severity": "bad", "when": {"driver": ">1"}}]
    found = known_issues.match(rows, {"driver": "550.90.07"})
    assert [issue.id for issue in found] == ["b", "x"]
    assert [issue.id for issue in known_issues.refusals(found, [])] == ["b"]
    assert known_issues.refusals(found, ["b"]) == []


@pytest.mark.parametrize(
    ("facts", "ids"),
    [
        ({"driver": "550.90.07"}, ["graph-hang-550.90.07"]),
        ({"driver": "550.127.05"}, []),
        ({"driver": "580.95.05", "nccl": "2.28.9"}, ["graph-replay-nccl-2.28"]),
        ({"driver": "580.95.05", "nccl": "2.30.4", "fabric_manager": "580.95.05"}, []),
        ({"driver": "550.54.15", "fabric_manager": "550.90.07"}, ["fabric-manager-differs"]),
    ],
)
def test_shipped_issues(facts: dict[str, Any], ids: list[str]) -> None:
    assert [issue.id for issue in known_issues.match(SHIPPED, facts)] == ids


def test_shipped_rows_are_complete() -> None:
    assert len({row["id"] for row in SHIPPED}) == len(SHIPPED)
    for row in SHIPPED:
        assert set(row) == {"id", "severity", "when", "effect", "remediation", "source", "confidence"}, row["id"]
        assert row["severity"] in known_issues.SEVERITIES
        assert row["confidence"] in ("low", "medium", "high")
        assert row["source"].startswith("https://")
        assert row["severity"] == "suspect" or row["confidence"] == "high", f"{row['id']}: bad needs high confidence"
    known_issues.match(SHIPPED, dict.fromkeys(known_issues.FACTS, "1.2.3"))


def test_a_table_is_found_as_json_on_a_host(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_tables, "CHECKOUT", tmp_path / "none")
    monkeypatch.setattr(data_tables.records, "SHARE", tmp_path)
    with pytest.raises(FileNotFoundError):
        data_tables.read("known_issues")
    (tmp_path / "known_issues.json").write_text('[{"id": "x"}]')
    assert data_tables.read("known_issues") == [{"id": "x"}]
