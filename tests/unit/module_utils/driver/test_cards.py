"""Which card a name means, by the words that operators and our tables write."""

from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import data_tables
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import cards, known_issues
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import bandwidth

ROW = {"id": "x", "severity": "bad", "effect": "e", "remediation": "r", "source": "s", "confidence": "low"}


@pytest.mark.parametrize(
    ("words", "name", "same"),
    [
        ("L4", "NVIDIA L4", True),
        ("L4", "NVIDIA L40S", False),
        ("L40", "NVIDIA L40S", False),
        ("H200", "NVIDIA H200", True),
        ("H200", "NVIDIA GH200 480GB", False),
        ("B200", "NVIDIA GB200", False),
        ("A10", "NVIDIA A10G", False),
        ("A100", "NVIDIA A100-SXM4-80GB", True),
        ("a100-sxm4", "NVIDIA A100-SXM4-80GB", True),
        ("80GB", "NVIDIA A100-SXM4-80GB", True),
        ("0GB", "NVIDIA A100-SXM4-80GB", False),
        ("h100 80gb", "NVIDIA H100 80GB HBM3", True),
        ("H100  80GB", "NVIDIA H100 80GB HBM3", True),
        ("H100 PCIe", "NVIDIA H100 80GB HBM3", False),
        ("V100", "Tesla V100S-PCIE-32GB", False),
        ("", "NVIDIA L4", False),
    ],
)
def test_words_are_whole(words: str, name: str, same: bool) -> None:
    assert cards.is_card(words, name) is same


def test_known_issues_name_cards_by_whole_words() -> None:
    row = ROW | {"when": {"gpu": "H200"}}
    fits = [
        bool(known_issues.match([row], {"gpu": gpu})) for gpu in ("NVIDIA H200", "NVIDIA GH200 480GB, NVIDIA GH200")
    ]
    assert fits == [True, False]


def test_a_bandwidth_floor_of_h200_is_none_of_gh200() -> None:
    rows = data_tables.read("busbw_floors")
    about = {"link": "nvlink", "gpus_per_host": 8, "hosts": 1, "nccl": "2.27.5"}
    assert bandwidth.choose(rows, gpu="NVIDIA H200", **about).gbps == 431
    with pytest.raises(bandwidth.NoFloor):
        bandwidth.choose(rows, gpu="NVIDIA GH200 480GB", **about)
