"""Kinds of RDMA devices, from trees as sysfs has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.driver import links


@pytest.mark.parametrize(
    ("devices", "kinds"),
    [
        ({}, []),
        ({"mlx5_0": ("mlx5_core", "InfiniBand"), "mlx5_bond_0": ("mlx5_core", "Ethernet")}, ["infiniband", "roce"]),
        ({"rdmap16s27": ("efa", "Unspecified")}, ["efa"]),
        ({"usnic_0": ("usnic", "Unspecified")}, []),
    ],
    ids=["none", "a rail and a storage bond", "EFA", "another"],
)
def test_links(devices: dict[str, tuple[str, str]], kinds: list[str], tmp_path: Path) -> None:
    for name, (driver, layer) in devices.items():
        device = tmp_path / "sys/class/infiniband" / name
        (device / "ports/1").mkdir(parents=True)
        (device / "ports/1/link_layer").write_text(f"{layer}\n")
        module = tmp_path / "sys/bus/pci/drivers" / driver
        module.mkdir(parents=True, exist_ok=True)
        (device / "device").mkdir()
        (device / "device/driver").symlink_to(module)
    assert links.links(tmp_path) == kinds
