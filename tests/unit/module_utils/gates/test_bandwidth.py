"""busbw by nccl-tests' definition, and the choice of a floor."""

from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import data_tables
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import bandwidth
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks import collectives

ROWS = data_tables.read("busbw_floors")


@pytest.mark.parametrize(
    ("operation", "ranks", "expected"),
    [
        ("all_reduce", 2, 1.0),
        ("all_reduce", 8, 1.75),
        ("all_gather", 8, 0.875),
        ("reduce_scatter", 4, 0.75),
        ("broadcast", 2, 1.0),
        ("broadcast", 4, 1.0),
        ("all_reduce", 1, 0.0),
        ("broadcast", 1, 0.0),
    ],
)
def test_busbw(operation, ranks, expected):
    assert bandwidth.busbw(operation, 2 * 10**9, 2.0, ranks) == expected


def test_what_the_ranks_measure_has_a_busbw():
    assert all(bandwidth.busbw(operation, 10**9, 1.0, 2) for operation in collectives.OPERATIONS)


@pytest.mark.parametrize(
    ("gpu", "link", "gpus_per_host", "hosts", "expected"),
    [
        ("NVIDIA H200", "nvlink", 8, 1, 431),
        ("NVIDIA H100 80GB HBM3", "nvlink", 8, 1, 400),
        ("NVIDIA H100 PCIe", "pcie", 8, 1, 28),
        ("NVIDIA H100 80GB HBM3", "ib", 8, 2, 288),
        ("NVIDIA A100-SXM4-80GB", "nvlink", 8, 1, 185),
        ("NVIDIA B200", "nvlink", 8, 1, 440),
        ("NVIDIA B300 SXM6 AC", "nvlink", 8, 1, 800),
        ("NVIDIA GB200", "nvlink", 4, 2, 700),
        ("NVIDIA GB300", "nvlink", 4, 4, 600),
        ("NVIDIA H100 NVL", "nvlink", 2, 1, 208),
        ("NVIDIA A100 80GB PCIe", "pcie", 4, 1, 25),
        ("NVIDIA H200", "roce", 8, 2, 250),  # of two operators the one that demands less
        ("NVIDIA B200", "efa", 8, 4, 305),
        ("NVIDIA H100 80GB HBM3", "tcpxo", 8, 2, 150),
        (None, "ethernet", 1, 2, 0),
        ("NVIDIA H200", "nvlink", 1, 1, 0),  # one rank: nothing crosses a bus
    ],
)
def test_choose(gpu, link, gpus_per_host, hosts, expected):
    floor = bandwidth.choose(ROWS, gpu=gpu, link=link, gpus_per_host=gpus_per_host, hosts=hosts, nccl="2.27.5")
    assert floor.gbps == expected
    assert floor.source


@pytest.mark.parametrize(
    ("gpu", "link", "gpus_per_host", "hosts"),
    [
        ("NVIDIA Unheard-of 9000", "nvlink", 8, 1),
        ("NVIDIA H200", "nvlink", 4, 1),
        ("NVIDIA H200", "ethernet", 8, 2),
        ("NVIDIA GB200", "nvlink", 8, 1),  # no B200
        ("NVIDIA H20", "nvlink", 8, 1),  # no H200
        ("NVIDIA B200", "efa", 8, 8),  # given for four hosts
        ("NVIDIA GB200", "nvlink", 4, 8),
    ],
)
def test_an_unknown_card_gets_one_clear_message(gpu, link, gpus_per_host, hosts):
    with pytest.raises(bandwidth.NoFloor, match=f"no busbw floor is known for {gpu} over {link}.*floor_gbps"):
        bandwidth.choose(ROWS, gpu=gpu, link=link, gpus_per_host=gpus_per_host, hosts=hosts, nccl=None)


def test_a_given_floor_wins():
    floor = bandwidth.choose([], gpu="NVIDIA Unheard-of", link="pcie", gpus_per_host=8, hosts=1, nccl=None, given=12.5)
    assert (floor.gbps, floor.source) == (12.5, "given by the operator")


def test_a_row_for_a_newer_nccl_wins_only_with_that_nccl():
    rows = [
        {**ROWS[0], "nccl_min": None, "floor_gbps": 100},
        {**ROWS[0], "nccl_min": "2.28", "floor_gbps": 200},
    ]
    about = {"gpu": "H200", "link": "nvlink", "gpus_per_host": 8, "hosts": 1}
    assert bandwidth.choose(rows, nccl="2.27.9", **about).gbps == 100
    assert bandwidth.choose(rows, nccl="2.28.3", **about).gbps == 200


ROW = {
    "hosts": 4,
    "network_gbps": 400,
    "gpu": "H100",
    "link": "ib",
    "gpus_per_host": 8,
    "across_hosts": True,
    "nccl_min": "2.20",
    "operation": "all_gather",
    "floor_gbps": 100,
    "source": "here",
    "confidence": "low",
}
ABOUT = {"gpu": "NVIDIA h100 80GB", "link": "ib", "gpus_per_host": 8, "hosts": 2, "nccl": "2.20"}


def test_the_row_that_fits_is_the_floor():
    assert bandwidth.choose([ROW], **ABOUT) == bandwidth.Floor(100.0, "here", "low", "all_gather")


@pytest.mark.parametrize(
    "change",
    [
        {"gpu": "NVIDIA A100"},
        {"link": "ethernet"},
        {"gpus_per_host": 4},
        {"hosts": 1},
        {"nccl": "2.19.9"},
        {"gpu": None},
        {"network_gbps": 350},
        {"hosts": 5},
    ],
)
def test_a_row_fits_in_every_respect_or_not_at_all(change):
    with pytest.raises(bandwidth.NoFloor):
        bandwidth.choose([ROW], **{**ABOUT, **change})


def test_an_unknown_nccl_takes_any_row_and_a_row_may_leave_things_open():
    assert bandwidth.choose([ROW], **{**ABOUT, "nccl": None}).gbps == 100
    loose = {**ROW, "gpus_per_host": None, "nccl_min": None}
    assert bandwidth.choose([loose], **{**ABOUT, "gpus_per_host": 3, "nccl": "1.0"}).gbps == 100


def test_the_row_that_names_the_card_most_exactly_wins():
    rows = [{**ROW, "gpu": "H100 80GB", "floor_gbps": 50, "nccl_min": None}, ROW, {**ROW, "gpu": None, "floor_gbps": 1}]
    assert bandwidth.choose(rows, **ABOUT).gbps == 50


def test_without_a_card_the_link_is_the_cpu():
    row = {**ROW, "gpu": None, "link": "cpu", "floor_gbps": 0}
    for size in (None, 64):
        assert bandwidth.choose([row], **{**ABOUT, "gpu": None}, size=size).source == "here"


def test_one_rank_has_no_floor_and_two_ranks_of_two_hosts_have():
    assert bandwidth.choose([], **{**ABOUT, "gpus_per_host": 1, "hosts": 1}) == bandwidth.Floor(
        0.0, "one rank: nothing crosses a bus", "certain"
    )
    with pytest.raises(bandwidth.NoFloor, match=r"over ib, 1 GPUs a host on 2 host\(s\), NCCL 2.20: give one"):
        bandwidth.choose([], **{**ABOUT, "gpus_per_host": 1})


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['gpu']}-{row['link']}-{row['across_hosts']}")
def test_every_row_has_a_source_and_makes_sense(row):
    assert row["source"]
    assert row["confidence"] in ("high", "medium", "low")
    assert 0 <= row["floor_gbps"] <= row.get("warn_gbps", row["floor_gbps"]) <= (row["expected_gbps"] or 10**6)
    assert row["operation"] in collectives.OPERATIONS


@pytest.mark.parametrize(("network", "fits"), [(None, True), (360, True), (800, True), (359, False), (25, False)])
def test_a_row_for_a_faster_network_does_not_fit(network, fits):
    about = {**ABOUT, "network_gbps": network}
    if fits:
        assert bandwidth.choose([ROW], **about).gbps == 100
    else:
        with pytest.raises(bandwidth.NoFloor):
            bandwidth.choose([ROW], **about)


def test_small_messages_have_no_floor_but_the_operators():
    none = bandwidth.Floor(0.0, "messages of 268435455 bytes: floors hold from 256 MiB", "certain")
    assert bandwidth.choose([ROW], **ABOUT, size=(256 << 20) - 1) == none
    assert bandwidth.choose([ROW], **ABOUT, size=256 << 20).gbps == 100
    assert bandwidth.choose([ROW], **ABOUT, size=4 << 20, given=7).gbps == 7


def test_a_row_may_warn_before_it_fails():
    assert bandwidth.choose([{**ROW, "warn_gbps": 180}], **ABOUT).warn == 180
    assert bandwidth.choose([ROW], **ABOUT).warn == bandwidth.Floor(100, "here", "low").warn == 0


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.get("network_gbps")], ids=lambda row: f"{row['gpu']}-{row['link']}"
)
def test_no_row_demands_more_than_the_wire_carries(row):
    hosts = row.get("hosts", 1000)
    ranks = hosts * row["gpus_per_host"]
    assert row["floor_gbps"] * (hosts - 1) / (ranks - 1) < 0.95 * row["network_gbps"] / 8
