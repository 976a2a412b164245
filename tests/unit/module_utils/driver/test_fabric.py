"""Who manages a host's NVSwitches, and which NVLink domain its GPUs have joined."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import fabric, health
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.health import GpuHealth

CASE = Path(__file__).parents[2] / "fixtures" / "cases" / "hgx-b200-no-pci-switch"
CLUSTER, ZEROS = "5f3e1b2a-0000-4000-8000-0000000000aa", "00000000-0000-0000-0000-000000000000"
XML = (
    '<?xml version="1.0" ?><nvidia_smi_log>'
    "<gpu id='0008:01:00.0'><fabric><state>Completed</state><status>Success</status>"
    "<cliqueId>32766</cliqueId><clusterUuid>{}</clusterUuid></fabric></gpu></nvidia_smi_log>"
)


def tree(root: Path, text: str) -> Path:
    """A file system from lines ``path content``, as a case holds it."""
    for line in text.splitlines():
        if " -> " in line:
            continue
        path, _, content = line.partition(" ")
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        mark = content.removeprefix("holds the text ")
        if mark == content:
            file.write_text(f"{content}\n")
        else:
            file.write_bytes(b"\x82\x1c\0ConnectX-7 management\x90\x20\0VU\x06" + mark.encode() + b"\x78")
    return root


def functions(root: Path, *lines: str) -> Path:
    return tree(root, "\n".join(f"/sys/bus/pci/devices/{line}" for line in lines))


def test_switches_that_are_no_pci_devices_are_known_by_who_manages_them(tmp_path: Path) -> None:
    tree(tmp_path, (CASE / "tree.txt").read_text())
    assert fabric.switch_managers(tmp_path) == ["0000:a0:00.0", "0000:a1:00.0", "0000:a2:00.0", "0000:a3:00.0"]
    assert fabric.spans_hosts(tmp_path) is False


def test_ports_that_lead_to_nvswitches_and_no_further(tmp_path: Path) -> None:
    tree(tmp_path, (CASE / "tree.txt").read_text())
    for number, device in enumerate(("a0", "a1", "a2", "a3")):
        (tmp_path / f"sys/bus/pci/devices/0000:{device}:00.0/infiniband/mlx5_{number}").mkdir(parents=True)
    assert fabric.switch_ports(tmp_path) == ["mlx5_0", "mlx5_1", "mlx5_2", "mlx5_3"]
    assert fabric.switch_ports(tmp_path / "none") == []


GPU = ("g/vendor 0x10de", "g/class 0x030200")
NIC = ("n/vendor 0x15b3", "n/class 0x020700")


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param((*NIC, "n/vpd holds the text SW_MNG"), id="no GPU"),
        pytest.param((*GPU, *NIC, "n/vpd PN MCX75310AAS"), id="a card for the network"),
        pytest.param((*GPU, *NIC), id="no vital product data"),
        pytest.param((*GPU, "n/vendor 0x8086", "n/class 0x020700", "n/vpd holds the text SW_MNG"), id="no ConnectX"),
        pytest.param((*GPU, "n/vendor 0x15b3", "n/class 0x020000", "n/vpd holds the text SW_MNG"), id="Ethernet"),
    ],
)
def test_no_switch_is_managed_from_here(tmp_path: Path, lines: tuple[str, ...]) -> None:
    assert fabric.switch_managers(functions(tmp_path, *lines)) == []


def test_reading_is_bounded_and_survives_what_cannot_be_read(tmp_path: Path) -> None:
    functions(tmp_path, *GPU, *NIC, *(line.replace("n/", "o/") for line in NIC))
    (tmp_path / "sys/bus/pci/devices/n/vpd").write_bytes(b"\0" * fabric.VPD_LIMIT + fabric.MARK)
    os.mkdir(tmp_path / "sys/bus/pci/devices/o/vpd")
    assert fabric.switch_managers(tmp_path) == []


@pytest.mark.parametrize(
    ("device", "spans"), [("0x2901", False), ("0x2941", True), ("0x31c2", True), ("0x2330", False)]
)
def test_cards_whose_nvlink_reaches_other_hosts(tmp_path: Path, device: str, spans: bool) -> None:
    functions(tmp_path, *GPU, f"g/device {device}")
    assert fabric.spans_hosts(tmp_path) is spans


@pytest.mark.parametrize(
    ("listed", "spans"),
    [
        pytest.param("# one address a line\n10.0.0.11\n10.0.0.12\n", True, id="an operator has said who shares memory"),
        pytest.param("10.0.0.11\n", False, id="this host alone"),
        pytest.param("# 10.0.0.11\n# 10.0.0.12\n", False, id="as it came"),
    ],
)
def test_cards_that_are_not_listed_go_by_what_imex_was_given(tmp_path: Path, listed: str, spans: bool) -> None:
    """GH200 NVL32, and racks that came after this table; nvidia-imex alone says nothing: it is installed on HGX B200 too."""
    file = tmp_path / fabric.IMEX_HOSTS
    file.parent.mkdir(parents=True)
    file.write_text(listed)
    assert fabric.spans_hosts(tmp_path) is False  # no card of NVIDIA's
    functions(tmp_path, *GPU, "g/device 0x2342")
    assert fabric.spans_hosts(tmp_path) is spans


def gpu(cluster: str | None, clique: str | None = "1", state: str | None = "Completed") -> GpuHealth:
    return GpuHealth("0", fabric_state=state, fabric_status="Success", fabric_cluster=cluster, fabric_clique=clique)


@pytest.mark.parametrize(
    ("gpus", "domain"),
    [
        ([], None),
        ([gpu(CLUSTER), gpu(CLUSTER)], f"{CLUSTER}.1"),
        ([gpu(CLUSTER), gpu(CLUSTER, "2")], None),
        ([gpu(CLUSTER), gpu(ZEROS)], None),
        ([gpu(ZEROS, "0")], None),
        ([gpu(None, None, None)], None),
        ([gpu(CLUSTER, state="In Progress")], None),
    ],
)
def test_the_domain_that_a_host_has_joined(gpus: list[GpuHealth], domain: str | None) -> None:
    assert fabric.joined(gpus) == domain


def test_nvidia_smi_is_asked_only_where_nvlink_reaches_other_hosts(tmp_path: Path) -> None:
    asked: list[str] = []

    def run(argv, _deadline):
        asked.append(argv[0])
        return CommandResult(0, XML.format(CLUSTER) if argv[0] == "nvidia-smi" else "inactive\n")

    host = functions(tmp_path / "b200", *GPU, "g/device 0x2901")
    assert fabric.read(host, run, 1.0) == {
        "switch_managers": 0, "ib_umad": False, "spans_hosts": False, "domain": None, "imex_active": None, "imex_channel": None,
    }  # fmt: skip
    assert asked == []
    rack = functions(tmp_path / "gb200", *GPU, "g/device 0x2941")
    (rack / "sys/module/ib_umad").mkdir(parents=True)
    assert fabric.read(rack, run, 1.0) == {
        "switch_managers": 0, "ib_umad": True, "spans_hosts": True, "domain": f"{CLUSTER}.32766", "imex_active": False, "imex_channel": False,
    }  # fmt: skip


def test_a_channel_is_a_device_that_programs_may_open(tmp_path: Path) -> None:
    rack = functions(tmp_path, *GPU, "g/device 0x2941")
    channels = rack / fabric.IMEX_CHANNELS
    channels.mkdir(parents=True)
    assert fabric.read(rack, lambda _argv, _deadline: CommandResult(0, "active\n"), 1.0)["imex_channel"] is False
    (channels / "channel0").touch()
    found = fabric.read(rack, lambda _argv, _deadline: CommandResult(0, "active\n"), 1.0)
    assert (found["imex_channel"], found["imex_active"]) == (True, True)


@pytest.mark.parametrize("answer", [CommandResult(0, "no XML"), CommandResult(9), CommandResult(None, timed_out=True)])
def test_a_driver_that_does_not_say_has_no_domain(tmp_path: Path, answer: CommandResult) -> None:
    rack = functions(tmp_path, *GPU, "g/device 0x2941")
    assert fabric.read(rack, lambda _argv, _deadline: answer, 1.0)["domain"] is None


@pytest.mark.parametrize("version", ["535.183.01", "550.127.05"])
def test_a_cluster_of_zeros_is_read_and_is_no_domain(version: str) -> None:
    text = (CASE.parents[1] / "nvidia-smi" / version / "q-x.xml").read_text()
    gpus = health.parse_smi_xml(text)
    assert {(one.fabric_cluster, one.fabric_clique) for one in gpus} == {(ZEROS, "0")}
    assert fabric.joined(gpus) is None
