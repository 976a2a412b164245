"""What a host's links are and what they carried, on a host made of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import health
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import wire
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.wire import Nic

FIXTURES = Path(__file__).parents[2] / "fixtures"
ROUTED = {"0": "fe80:0000:0000:0000:0200:00ff:fe00:0001", "3": "0000:0000:0000:0000:0000:ffff:0a00:0001"}


def files(root: Path, folder: str, **content: str) -> Path:
    for name, text in content.items():
        path = root / folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root / folder


def port(
    root: Path, device: str, layer: str = "InfiniBand", rate: str = "400 Gb/sec (4X NDR)", gids=None, **more: str
) -> None:
    folder = f"sys/class/infiniband/{device}/ports/1"
    about = {"state": "4: ACTIVE", "link_layer": layer, "rate": rate, **more}
    files(root, folder, **about)
    for name, gid in (gids or {}).items():
        files(root, folder, **{f"gids__{name}": gid, f"gid_attrs__types__{name}": "RoCE v2"})


def count(root: Path, device: str, words: int) -> None:
    files(root, f"sys/class/infiniband/{device}/ports/1/counters", port_xmit_data=str(words), port_rcv_data=str(words))


def test_ports_and_interfaces(tmp_path: Path) -> None:
    port(tmp_path, "mlx5_0")
    count(tmp_path, "mlx5_0", 25)
    port(tmp_path, "mlx5_1", state="1: DOWN")
    port(tmp_path, "mlx5_2", "Ethernet", "100 Gb/sec (4X EDR)", ROUTED)
    port(tmp_path, "mlx5_3", "Ethernet", gids={"0": ROUTED["0"], "1": "0000:0000:0000:0000:0000:0000:0000:0000"})
    port(tmp_path, "mlx5_4")  # leads to NVSwitches
    port(tmp_path, "rdmap16s27", "Unspecified", "100 Gb/sec (4X EDR)")
    (tmp_path / "sys/class/infiniband/rdmap16s27/device").mkdir()
    (tmp_path / "sys/bus/pci/drivers/efa").mkdir(parents=True)
    os.symlink(tmp_path / "sys/bus/pci/drivers/efa", tmp_path / "sys/class/infiniband/rdmap16s27/device/driver")
    files(tmp_path, "sys/class/infiniband/rdmap16s27/ports/1/hw_counters", tx_bytes="7", rx_bytes="8")
    files(
        tmp_path,
        "sys/class/net/eth0",
        speed="25000",
        operstate="up",
        statistics__tx_bytes="5",
        statistics__rx_bytes="6",
    )
    files(tmp_path, "sys/class/net/veth", speed="-1", operstate="down")
    files(tmp_path, "sys/class/net/lo", speed="", operstate="unknown")
    assert wire.nics(tmp_path, ignored=["mlx5_4"]) == (
        Nic("mlx5_0", "ib", 400.0, usable=True, sent=100, received=100),
        Nic("mlx5_1", "ib", 400.0),
        Nic("mlx5_2", "roce", 100.0, usable=True),
        Nic("mlx5_3", "roce", 400.0),
        Nic("rdmap16s27", "efa", 100.0, usable=True, sent=7, received=8),
        Nic("eth0", "ethernet", 25.0, usable=True, sent=5, received=6),
        Nic("veth", "ethernet"),
    )


def test_a_mlx5_port_that_is_ethernet_is_no_infiniband(tmp_path: Path) -> None:
    """Case link-mlx5-is-ethernet."""
    for line in (FIXTURES / "cases" / "link-mlx5-is-ethernet" / "infiniband.txt").read_text().splitlines():
        path, _, content = line.partition(" ")
        files(tmp_path, str(Path(path).parent).lstrip("/"), **{Path(path).name: content})
    found = wire.nics(tmp_path)
    assert {(nic.name, nic.kind, nic.gbps) for nic in found} == {("mlx5_0", "roce", 100.0), ("mlx5_1", "roce", 100.0)}
    assert wire.network_kind(found) == "ethernet"  # no GID is listed, so none that a router takes
    for device in ("mlx5_0", "mlx5_1"):
        port(tmp_path, device, "Ethernet", "100 Gb/sec (4X EDR)", ROUTED)
    assert wire.network_kind(wire.nics(tmp_path)) == "roce"


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((), "ethernet"),
        (("ethernet",), "ethernet"),
        (("ib", "roce"), "ib"),
        (("ib", "efa"), "efa"),
        (("roce",), "roce"),
    ],
)
def test_the_best_network_that_a_host_has(kinds, expected) -> None:
    assert wire.network_kind([Nic("x", kind, usable=True) for kind in kinds]) == expected
    assert wire.network_kind([Nic("x", kind) for kind in kinds]) == "ethernet"


def test_what_was_carried_is_the_difference_of_what_is_counted() -> None:
    before = [
        Nic("a", "ib", sent=10, received=20),
        Nic("b", "ib", sent=90, received=5),
        Nic("c", "ib", sent=0, received=0),
    ]
    after = [
        Nic("a", "ib", sent=15, received=20),
        Nic("b", "ib", sent=3, received=9),
        Nic("c", "ib", sent=0, received=0),
        Nic("new", "ib", sent=1),
    ]
    assert [(nic.sent, nic.received, nic.moved) for nic in wire.carried(before, after)] == [
        (5, 0, 5), (None, 4, None), (None, None, None), (None, None, None),
    ]  # fmt: skip


def test_the_domain_is_asked_for_where_nvlink_reaches_other_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(wire.health, "nvlink", lambda _deadline: ())
    monkeypatch.setattr(wire.fabric, "domain", lambda _run, _deadline: asked.append("domain") or "5f3e.1")
    files(tmp_path, "proc/driver/nvidia", version="NVRM version: NVIDIA UNIX Open Kernel Module")
    assert (wire.Watch(tmp_path).end("").domain, asked) == (None, [])
    files(tmp_path, "sys/bus/pci/devices/g", vendor="0x10de", device="0x2941", **{"class": "0x030200"})
    assert (wire.Watch(tmp_path).end("").domain, asked) == ("5f3e.1", ["domain"])


def test_a_watch_sees_what_nccl_said_and_what_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "host.json"
    record.write_text('{"nvswitch_ports": ["mlx5_9"]}')
    monkeypatch.setattr(records, "HOST", record)
    port(tmp_path, "mlx5_0")
    port(tmp_path, "mlx5_9")
    count(tmp_path, "mlx5_0", 1000)
    watch = wire.Watch(tmp_path)
    count(tmp_path, "mlx5_0", 1500)
    seen = watch.end("a1:1:1 [0] NCCL INFO Using network IB\n")
    assert [(nic.name, nic.moved) for nic in seen.nics] == [("mlx5_0", 4000)]
    assert seen.said is not None
    assert seen.said.networks == ("IB",)
    assert (seen.nvlink, seen.pcie) == (None, None)
    assert wire.Watch(tmp_path).end("").said is None


@pytest.mark.parametrize("text", ["{", "[]", '{"nvswitch_ports": 3}', "{}"])
def test_a_host_record_without_nvswitch_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "host.json").write_text(text)
    monkeypatch.setattr(records, "HOST", tmp_path / "host.json")
    assert wire.nvswitch_ports() == ()


H100_NVL = "".join(
    f"GPU {gpu}: NVIDIA H100 NVL (UUID: GPU-{gpu})\n"
    + "".join(f"\t Link {n}: {'<inactive>' if n in (4, 5, 10, 11, 16, 17) else '26.562 GB/s'}\n" for n in range(18))
    for gpu in range(2)
)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        pytest.param(
            (FIXTURES / "nvidia-smi/550.127.05/nvlink-s.txt").read_text(), 451.554, id="one link of the second is down"
        ),
        pytest.param(H100_NVL, 318.744, id="two on a bridge"),
        pytest.param("GPU 0: NVIDIA L40S (UUID: GPU-0)\n", None, id="none"),
        pytest.param("", None, id="nothing said"),
    ],
)
def test_nvlink_rate_is_of_the_slowest_gpu(text: str, rate: float | None) -> None:
    assert wire.nvlink_rate(health.parse_nvlink(text)) == rate


PAIRS = "\tGPU0\tGPU1\tGPU2\tGPU3\nGPU0\t X \tNV12\tSYS\tSYS\nGPU1\tNV12\t X \tSYS\tSYS\nGPU2\tSYS\tSYS\t X \tNV12\nGPU3\tSYS\tSYS\tNV12\t X \n"


@pytest.mark.parametrize(
    ("name", "joined"),
    [("h100-one", False), ("g6e-12xlarge", False), ("p4d-24xlarge", True), ("h100-with-nics", True)],
)
def test_which_hosts_gpus_are_all_joined_by_nvlink(name: str, joined: bool) -> None:
    assert wire.all_by_nvlink((FIXTURES / "nvidia-smi" / "topo" / f"{name}.txt").read_text()) is joined


def test_pairs_on_bridges_leave_all_others_to_pcie() -> None:
    assert wire.all_by_nvlink(PAIRS) is False
    assert wire.all_by_nvlink("") is False


def card(root: Path, name: str, width: str = "16", speed: str = "16.0 GT/s PCIe", above: str = "") -> None:
    folder = files(root, f"sys/devices/port-{name}/{name}", vendor="0x10de", **{"class": "0x030200"},
                   current_link_width=width, max_link_speed=speed)  # fmt: skip
    if above:
        files(root, f"sys/devices/port-{name}", max_link_speed=above)
    (root / "sys/bus/pci/devices").mkdir(parents=True, exist_ok=True)
    os.symlink(folder, root / "sys/bus/pci/devices" / name)


@pytest.mark.parametrize(
    ("cards", "rate"),
    [
        ([], None),
        ([{}], 31.508),
        ([{"speed": "32.0 GT/s PCIe"}], 63.015),
        ([{"speed": "32.0 GT/s PCIe", "above": "16.0 GT/s PCIe"}], 31.508),
        ([{"width": "8"}], 15.754),
        ([{}, {"width": "8"}], 15.754),
        ([{"speed": "64.0 GT/s PCIe"}], 121.0),
        ([{"speed": "Unknown"}], None),
        ([{}, {"width": "0"}], None),
    ],
)
def test_pcie_rate_is_of_the_slowest_card(tmp_path: Path, cards: list[dict[str, str]], rate: float | None) -> None:
    for number, about in enumerate(cards):
        card(tmp_path, f"0000:0{number}:00.0", **about)
    assert wire.pcie_rate(tmp_path) == rate
