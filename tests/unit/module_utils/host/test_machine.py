"""Which machine the probe says this is, its cards and its networks: from files and texts as kernels and tools give them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.host import machine
from ansible_collections.lockstep.vllm.plugins.module_utils.host import probe as host_probe

# From a machine with two addresses in one network: ip -json -4 address show (iproute2 6.1), /proc/net/route (Linux 6.1).
SHOWN = json.dumps(
    [
        {"ifindex": 1, "ifname": "lo", "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8}]},
        {"ifindex": 2, "ifname": "eth0", "addr_info": [{"family": "inet", "local": "192.0.2.2", "prefixlen": 24}]},
        {"ifindex": 3, "ifname": "eth1", "addr_info": [{"family": "inet", "local": "192.0.2.3", "prefixlen": 24}]},
        {"ifindex": 4, "ifname": "ib0", "addr_info": []},
    ]
)
ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth1\t000200C0\t00000000\t0001\t0\t0\t101\t00FFFFFF\t0\t0\t0
"""


def device(root: Path, slot: str, vendor: str, kind: str) -> None:
    folder = root / "sys/bus/pci/devices" / slot
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(f"{vendor}\n")
    (folder / "class").write_text(f"{kind}\n")


def test_a_machine_as_its_files_say(tmp_path: Path) -> None:
    for path, text in (
        ("etc/machine-id", "3d1219c7c4c5404aaa1f6d2a48adfda4\n"),
        ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
        ("proc/sys/net/ipv4/ip_local_reserved_ports", "8080,9000-9010\n"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    device(tmp_path, "0000:01:00.0", "0x10de", "0x030200")
    device(tmp_path, "0000:02:00.0", "0x10de", "0x030000")
    device(tmp_path, "0000:03:00.0", "0x10de", "0x068000")  # an NVSwitch
    device(tmp_path, "0000:04:00.0", "0x1a03", "0x030000")  # the card of the management controller
    assert machine.machine(tmp_path) == {
        "id": "3d1219c7c4c5404aaa1f6d2a48adfda4",
        "pci_gpus": 2,
        "ephemeral_ports": [32768, 60999],
        "reserved_ports": "8080,9000-9010",
        "links": [],
        "rdma": [],
    }


def test_a_machine_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    nothing = {"id": "", "pci_gpus": 0, "ephemeral_ports": [], "reserved_ports": "", "links": [], "rdma": []}
    assert machine.machine(tmp_path) == nothing


def test_rdma_devices_with_a_port_that_is_up(tmp_path: Path) -> None:
    states = {
        "mlx5_0/ports/1": "4: ACTIVE",
        "mlx5_0/ports/2": "4: ACTIVE",
        "mlx5_1/ports/1": "1: DOWN",
        "irdma0/ports/1": "4: ACTIVE",
    }
    for port, state in states.items():
        (tmp_path / "sys/class/infiniband" / port).mkdir(parents=True)
        (tmp_path / "sys/class/infiniband" / port / "state").write_text(f"{state}\n")
    assert machine.active_rdma(tmp_path) == ["irdma0", "mlx5_0"]


UDP = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 2500: 00000000:CA6C 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 119913 2 00000000d7621fab 0
"""


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (False, False, False)),
        ({"sys/module/wireguard/refcnt": "0"}, (True, False, False)),
        (
            {
                "lib/modules/{kernel}/modules.dep": "kernel/drivers/net/wireguard/wireguard.ko.xz: kernel/net/ipv4/udp_tunnel.ko.xz"
            },
            (True, False, False),
        ),
        ({"lib/modules/{kernel}/modules.builtin": "kernel/drivers/net/wireguard/wireguard.ko"}, (True, False, False)),
        ({"lib/modules/{kernel}/modules.dep": "kernel/drivers/net/veth.ko:", "dev/net/tun": ""}, (False, True, False)),
        ({"proc/net/udp": UDP}, (False, False, True)),
        ({"proc/net/udp6": UDP.replace("00000000:CA6C", f"{'0' * 32}:CA6C")}, (False, False, True)),
        ({"proc/net/udp": UDP.replace("CA6C", "CA6D")}, (False, False, False)),
    ],
)
def test_what_a_host_has_for_a_tunnel(tmp_path: Path, files: dict[str, str], expected: tuple[bool, bool, bool]) -> None:
    for name, text in {**files, "sys/class/net/eth0/mtu": "9000\n"}.items():
        path = tmp_path / name.format(kernel=os.uname().release)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = machine.carrier(51820, tmp_path)
    assert (found["kernel"], found["tun"], found["port_taken"]) == expected
    assert found["mtu"] == {"eth0": 9000}


def test_networks_have_the_metric_of_their_own_route() -> None:
    assert machine.networks(SHOWN, ROUTES) == {
        "lo": [{"address": "127.0.0.1", "prefix": 8, "metric": None}],
        "eth0": [{"address": "192.0.2.2", "prefix": 24, "metric": 0}],
        "eth1": [{"address": "192.0.2.3", "prefix": 24, "metric": 101}],
        "ib0": [],
    }


def test_this_machine() -> None:
    state = host_probe.collect({})
    assert "error" not in state["machine"]
    assert state["machine"]["id"] == Path("/etc/machine-id").read_text().strip()
    assert "127.0.0.1" in [each["address"] for each in state["networks"]["lo"]]


def test_networks_that_cannot_be_read_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_argv: list[str]) -> str:
        raise OSError("no ip")

    monkeypatch.setattr(host_probe, "_command", fails)
    state = host_probe.collect({})
    assert state["networks"] == {"error": "OSError: no ip"}
