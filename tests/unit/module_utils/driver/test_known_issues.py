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
        ({"kernel": ">=6.19"}, {"kernel": "6.19.3-amd64"}, True),
        ({"kernel": ">=6.19"}, {"kernel": "6.19~rc4-amd64"}, False),
        ({"kernel": ">=6.19"}, {"kernel": "6.8.0-60-generic"}, False),
        ({"torch": "<2.15"}, {"torch": "2.15.0a0+git1234567"}, True),
        ({"vllm": ">=0.26.1rc1.dev148,<0.32"}, {"vllm": "0.26.1rc1.dev148+gd9fbe526c"}, True),
        ({"vllm": ">=0.26.1rc1.dev148,<0.32"}, {"vllm": "0.26.1rc1.dev78"}, False),
        ({"vllm": ">=0.26.1rc1.dev148,<0.32"}, {"vllm": "0.32.0rc1"}, True),
        ({"flashinfer": "0.6.8.post1"}, {"flashinfer": "0.6.8"}, False),
        ({"flashinfer": "0.6.8.post1"}, {"flashinfer": "0.6.8.post1"}, True),
        ({"arch": "aarch64"}, {"arch": "x86_64"}, False),
        ({"arch": "aarch64"}, {"arch": "aarch64"}, True),
        ({"flavor": "open"}, {"flavor": "proprietary"}, False),
        ({"flavor": "open"}, {}, False),
        ({"link": "efa"}, {"link": "efa, nvlink"}, True),
        ({"link": ["infiniband", "roce"]}, {"link": "efa, nvlink"}, False),
        ({"link": ["infiniband", "efa"]}, {"link": "efa, nvlink"}, True),
        ({"nccl_build_id": ["aa", "bb"]}, {"nccl_build_id": "bb"}, True),
        ({"nccl_build_id": "aa"}, {"nccl_build_id": "aab"}, False),
        ({"uptime_days": ">=66"}, {"uptime_days": "65.99"}, False),
        ({"uptime_days": ">=66"}, {"uptime_days": "66.0"}, True),
        ({"uptime_days": ">=9"}, {"uptime_days": "10.5"}, True),
        ({"tensor_parallel_hosts": ">=2"}, {"tensor_parallel_hosts": "10"}, True),
        ({"driver": ["570.133.20", "580.105.08"]}, {"driver": "580.105.08"}, True),
        ({"driver": ["570.133.20", "580.105.08"]}, {"driver": "580.126.09"}, False),
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
        ({"driver": "580.95.05", "nccl": "2.29.7"}, []),  # what the CUDA lock has
        ({"driver": "580.95.05", "nccl": "2.28.9", "gpu": "NVIDIA GB10", "arch": "aarch64",
          "nccl_build_id": "a7f420a15e47d481db802629159ebc51c94d89c9"},
         ["graph-replay-nccl-2.28", "nccl-2.28.9-wheel-gb10", "nccl-aarch64-before-2.29.3"]),
        ({"driver": "580.95.05", "nccl": "2.28.9", "gpu": "NVIDIA GB10", "arch": "aarch64", "nccl_build_id": "00"},
         ["graph-replay-nccl-2.28", "nccl-aarch64-before-2.29.3"]),
        ({"driver": "595.91.07", "gpu": "NVIDIA A100 80GB PCIe"}, ["garbage-595.91.07-a100-pcie"]),
        ({"driver": "595.91.07", "gpu": "NVIDIA A100-SXM4-80GB"}, []),
        ({"driver": "595.84", "gpu": "NVIDIA RTX PRO 6000 Blackwell Server Edition"},
         ["capture-stall-595.84", "graph-xid8-595.84"]),
        ({"driver": "595.71.05", "gpu": "NVIDIA B300 SXM6 AC"}, ["xid145-595.71.05-b300"]),
        ({"driver": "595.71.05", "gpu": "NVIDIA GB300"}, []),
        ({"driver": "595.71.05", "gpu": "NVIDIA GB200", "link": "efa, nvlink"}, ["efa-gb200-595"]),
        ({"driver": "580.159.04", "gpu": "NVIDIA GB200", "link": "efa"}, ["gdr-gb200-pcie-nic"]),
        ({"driver": "580.82.07", "gpu": "NVIDIA A100-SXM4-80GB"}, ["gsp-timeout-580.82.07-a100"]),
        ({"nccl": "2.30.4", "link": "pcie, roce"}, ["nccl-2.30.4-init-without-nvlink"]),
        ({"nccl": "2.30.4", "link": "nvlink, roce"}, []),
        ({"flashinfer": "0.6.8.post1", "gpu": "NVIDIA B200"}, ["flashinfer-0.6.8.post1-b200"]),
        ({"driver": "550.163.01", "kernel": "6.19.3-amd64"}, ["driver-550.163-kernel-6.19"]),
        ({"driver": "550.163.01", "kernel": "6.12.118+deb13-amd64", "flavor": "open"}, ["open-550.163.01-kernel-6.12.117"]),
        ({"driver": "550.163.01", "kernel": "6.12.118+deb13-amd64", "flavor": "proprietary"}, []),
        ({"driver": "580.105.08", "flavor": "open", "gpu": "NVIDIA B200", "uptime_days": "66.6"}, ["smi-hang-66-days"]),
        ({"driver": "580.105.08", "flavor": "open", "gpu": "NVIDIA B200", "uptime_days": "10"}, []),
        ({"driver": "580.95.05", "nccl": "2.30.4", "fabric_manager": "580.95.05"}, []),
        ({"driver": "550.54.15", "fabric_manager": "550.90.07"}, ["fabric-manager-differs"]),
    ],
)  # fmt: skip
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
    known_issues.match(SHIPPED, dict.fromkeys(known_issues.FACTS, "1.2"))


BOMB = {"driver": "570.133.20", "flavor": "open", "gpu": "NVIDIA B200"}


@pytest.mark.parametrize(
    ("uptime", "left", "words"),
    [
        ("0", 66.0, "after 66 days of uptime, in 66.0 days: nvidia-smi and all new work hang"),
        ("54.25", 11.75, "after 66 days of uptime, in 11.8 days: nvidia-smi"),
        ("70.5", -4.5, "after 66 days of uptime, since 4.5 days it may come any moment: nvidia-smi"),
    ],
)
def test_an_issue_that_comes_with_uptime_is_reported_before(uptime: str, left: float, words: str) -> None:
    (bomb,) = known_issues.time_bombs(SHIPPED, {**BOMB, "uptime_days": uptime})
    assert (bomb.issue.id, bomb.at_days, bomb.days_left) == ("smi-hang-66-days", 66.0, left)
    assert str(bomb).startswith(words)
    assert "Reboot the host before then" in str(bomb)


@pytest.mark.parametrize(
    "facts",
    [
        BOMB,
        {**BOMB, "uptime_days": "1", "flavor": "proprietary"},
        {**BOMB, "uptime_days": "1", "driver": "580.126.09"},
        {},
    ],
    ids=["uptime unknown", "another flavour", "another driver", "nothing known"],
)
def test_no_time_bomb(facts: dict[str, Any]) -> None:
    assert known_issues.time_bombs(SHIPPED, facts) == []


def test_a_time_bomb_names_the_days_from_which_it_may_come() -> None:
    with pytest.raises(ValueError, match="expected >= and a number of days"):
        known_issues.time_bombs([ROW | {"when": {"uptime_days": "<66"}}], {"uptime_days": "1"})


def test_a_table_is_found_as_json_on_a_host(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_tables, "CHECKOUT", tmp_path / "none")
    monkeypatch.setattr(data_tables.records, "SHARE", tmp_path)
    with pytest.raises(FileNotFoundError):
        data_tables.read("known_issues")
    (tmp_path / "known_issues.json").write_text('[{"id": "x"}]')
    assert data_tables.read("known_issues") == [{"id": "x"}]
