"""Which floor a rank group is held against: a row, or the line rates of what its hosts have."""

from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import data_tables
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import bandwidth, floors, line_rate
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import nccl as nccl_gate
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.line_rate import Group
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.nccl_log import Said
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks import events
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.wire import Nic, Wire
from tests.unit.module_utils.gates.rank_reports import busbw, report

ROWS = data_tables.read("busbw_floors")


def host(kind="ib", count=8, gbps=400.0, nvlink=478.116, pcie=63.015, said=None, **more) -> Wire:
    return Wire(said, tuple(Nic(f"mlx5_{n}", kind, gbps, usable=True, **more) for n in range(count)), nvlink, pcie)


MANAGEMENT = Nic("mlx5_9", "ib", 100.0, usable=True)
IB = host()
WITH_MANAGEMENT = Wire(None, (*IB.nics, MANAGEMENT, Nic("mlx5_8", "ib", 400.0)), IB.nvlink, IB.pcie)
TCP = Wire(
    Said(networks=("Socket",), interfaces=("eth0",)),
    (Nic("eth0", "ethernet", 100.0, usable=True), Nic("eth1", "ethernet", 400.0, usable=True)),
    None,
    31.508,
)
L40S = Wire(None, (), None, 31.508)


@pytest.mark.parametrize(
    ("group", "floor", "warn", "says"),
    [
        pytest.param(Group([IB], 8, "nvlink", "ib"), 239.06, 286.87, "NVLink of 478.116 GB/s a GPU", id="NVLink in a host"),
        pytest.param(Group([L40S], 8, "pcie", "ethernet"), 15.75, 18.9, "PCIe of 31.508 GB/s a GPU", id="PCIe in a host"),
        pytest.param(Group([IB] * 2, 8, "nvlink", "ib"), 239.06, 286.87, "NVLink", id="two hosts: NVLink is the narrow place"),
        pytest.param(
            Group([WITH_MANAGEMENT] * 8, 8, "nvlink", "ib"), 225.0, 270.0,
            "8 x 400 Gb/s ib (mlx5_0, mlx5_1, …): 400 Gb/s a GPU, 450 GB/s of busbw for 64 ranks", id="eight hosts: the network",
        ),
        pytest.param(
            Group([host("roce", 2, 100.0)] * 2, 8, "nvlink", "roce"), 23.44, 28.12, "2 x 100 Gb/s roce", id="25 Gb/s a GPU",
        ),
        pytest.param(
            Group([IB, host(count=4)], 8, "nvlink", "ib"), 187.5, 225.0, "4 x 400 Gb/s", id="the host that has least",
        ),
        pytest.param(Group([IB] * 2, 1, "nvlink", "ib"), 200.0, 240.0, "2 ranks", id="one GPU a host"),
        pytest.param(Group([TCP] * 2, 4, "pcie", "ethernet"), 10.94, 13.12, "1 x 100 Gb/s ethernet (eth0)", id="sockets"),
        pytest.param(
            Group([host(nvlink=900.0, kind="roce", count=4, gbps=800.0)] * 8, 4, "nvlink", "nvlink"), 450.0, 540.0,
            "NVLink of 900 GB/s", id="NVLink across hosts",
        ),
        pytest.param(
            Group([host(said=Said(devices=("mlx5_0", "mlx5_1"), chosen=True))] * 8, 8, "nvlink", "ib"), 56.25, 67.5,
            "2 x 400 Gb/s", id="the devices that the operator named",
        ),
        pytest.param(
            Group([host(said=Said(devices=("mlx5_0",)))] * 8, 8, "nvlink", "ib"), 225.0, 270.0,
            "8 x 400 Gb/s", id="all of them, where NCCL took one by itself",
        ),
        pytest.param(
            Group([host(nvlink=None, pcie=None)] * 8, 8, "nvlink", "ib"), 225.0, 270.0, "8 x 400", id="NVLink does not say",
        ),
    ],
)  # fmt: skip
def test_floor_of_links(group: Group, floor: float, warn: float, says: str) -> None:
    found = line_rate.floor(group)
    assert found is not None
    assert (found.gbps, found.warn) == (floor, warn)
    assert says in found.source


@pytest.mark.parametrize(
    "group",
    [
        pytest.param(Group([host(nvlink=None)], 8, "nvlink", "ib"), id="NVLink does not say"),
        pytest.param(Group([host(pcie=None)], 8, "pcie", "ib"), id="PCIe does not say"),
        pytest.param(Group([IB, host(gbps=None)], 8, "nvlink", "ib"), id="one host's ports do not say"),
        pytest.param(Group([IB, host(count=0)], 8, "nvlink", "ib"), id="one host has none"),
        pytest.param(Group([host(nvlink=None)] * 2, 4, "nvlink", "nvlink"), id="nor NVLink across hosts"),
        pytest.param(Group([L40S] * 2, 4, "pcie", "ethernet"), id="no interface"),
    ],
)
def test_links_that_do_not_say_give_no_floor(group: Group) -> None:
    assert line_rate.floor(group) is None


@pytest.mark.parametrize(
    ("measured", "hosts", "ranks", "gbps", "share"),
    [
        pytest.param(488, 2, 16, 400, 0.65, id="H100 EFA"),
        pytest.param(382, 4, 32, 400, 0.74, id="B200 EFA"),
        pytest.param(376, 8, 32, 800, 0.85, id="GB300 RoCE"),
    ],
)
def test_published_measurements_pass(measured: float, hosts: int, ranks: int, gbps: float, share: float) -> None:
    """The shares that field reports give, by the same formula."""
    per_host = ranks // hosts
    group = Group([host("efa", per_host, gbps, nvlink=2000.0)] * hosts, per_host, "nvlink", "efa")
    found = line_rate.floor(group)
    assert found is not None
    assert measured * line_rate.FAILS_BELOW / found.gbps == pytest.approx(share, abs=0.01)
    assert measured > found.warn


def started(name, rank, device, local="nvlink", network="ib", nccl="2.28.9"):
    return events.Started(rank, name, "nccl", device, nccl, local_link=local, network_link=network)


def group_of(device, wires, here=8, seconds=0.004, **links):
    size = 512 << 20
    return [
        report(f"a{n}", n * here, started(f"a{n}", n * here, device, **links),
               *(busbw(f"a{n}", n * here + rank, seconds, size=size) for rank in range(here)), here=here, wire=wires[n])
        for n in range(len(wires))
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("reports", "floor", "source"),
    [
        (group_of("NVIDIA H100 80GB HBM3", [IB]), 400, "Azure/azurehpc"),
        (group_of("NVIDIA H100 80GB HBM3", [IB, IB]), 288, "InfiniBand with GPUDirect"),
        (group_of("NVIDIA L40S", [L40S], local="pcie"), 15.75, "50% of line rate"),
        (group_of("NVIDIA GB10", [host(count=1, gbps=200.0, nvlink=None)] * 2, here=1, local="pcie"), 12.5, "1 x 200 Gb/s ib"),
        (group_of("NVIDIA H100 80GB HBM3", [host("roce", 2, 100.0)] * 2, network="roce"), 23.44, "2 x 100 Gb/s roce"),
        (
            group_of("NVIDIA H100 80GB HBM3", [host(said=Said(networks=("FasTrak",)))] * 2, network="ethernet"),
            150, "cluster-health-scanner",
        ),
        (
            group_of("NVIDIA GB200", [host(count=4, said=Said(networks=("IB",), mnnvl=True))] * 2, here=4),
            700, "NVSentinel",
        ),
        (group_of("NVIDIA GB200", [host("roce", 4)] * 2, here=4, network="roce"), 160, "a4x"),
    ],
)  # fmt: skip
def test_a_row_where_one_fits_and_the_line_rate_where_none_does(reports, floor, source) -> None:
    found = floors.of(reports, ROWS, link="auto", given=None)
    assert found is not None
    assert found.gbps == floor
    assert source in found.source


def test_a_mlx5_port_that_is_ethernet_is_not_held_against_infiniband() -> None:
    """Case link-mlx5-is-ethernet: 8 x 400 Gb/s are not demanded of 2 x 100 Gb/s."""
    found = floors.of(
        group_of("NVIDIA H100 80GB HBM3", [host("roce", 2, 100.0)] * 2, network="roce"), ROWS, link="auto", given=None
    )
    assert found is not None
    assert found.gbps < 288 / 10


@pytest.mark.parametrize(
    ("reports", "given", "link"),
    [
        (group_of("NVIDIA L40S", [Wire()], local="pcie"), None, "auto"),
        ([report("a1", 0, started("a1", 0, "NVIDIA L40S", "pcie"), here=8)], None, "auto"),
        (group_of("NVIDIA L40S", [IB, Wire()], local="pcie", network="ethernet"), None, "auto"),
    ],
)
def test_no_floor_is_left_where_nothing_says_how_fast_the_links_are(reports, given, link) -> None:
    with pytest.raises(bandwidth.NoFloor):
        floors.of(reports, ROWS, link=link, given=given)


def test_the_operators_floor_and_link_win() -> None:
    reports = group_of("NVIDIA L40S", [L40S], local="pcie")
    assert floors.of(reports, ROWS, link="auto", given=7.0) == bandwidth.Floor(7.0, "given by the operator", "given")
    reports = group_of("NVIDIA H100 80GB HBM3", [IB, IB])
    efa = floors.of(reports, ROWS, link="efa", given=None)
    assert efa is not None
    assert efa.gbps == 390
    assert floors.of([report("a1", 0)], ROWS, link="auto", given=None) is None


@pytest.mark.parametrize(
    ("seconds", "verdict", "warns"), [(0.045, "pass", False), (0.055, "pass", True), (0.07, "fail", False)]
)
def test_below_half_fails_and_below_three_fifths_warns(seconds: float, verdict: str, warns: bool) -> None:
    reports = group_of("NVIDIA L40S", [L40S], local="pcie", seconds=seconds)
    floor = floors.of(reports, ROWS, link="auto", given=None)
    result = nccl_gate.evaluate(reports, floor)
    assert result.verdict == verdict
    assert bool(result.warnings) is warns
    assert all("below 18.9 GB/s, though not 15.75 (50% of line rate" in line for line in result.warnings)
    assert result.floor["source"].startswith("50% of line rate")
