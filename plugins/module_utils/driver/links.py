"""What joins this host's GPUs to others, from sysfs: the kinds of its RDMA devices, and NVLink where it has switches."""

from __future__ import annotations

import os
from pathlib import Path

from ..core.system import read_text


def links(root: Path = Path("/")) -> list[str]:
    """``efa``, ``infiniband`` and ``roce``, each where a device of the kind is there, whether or not it is up."""
    found = set()
    for device in (root / "sys/class/infiniband").glob("*"):
        driver = os.path.basename(os.path.realpath(device / "device" / "driver"))
        layers = {read_text(port / "link_layer").strip() for port in (device / "ports").glob("*")}
        if driver == "efa":
            found.add("efa")
        elif "InfiniBand" in layers:
            found.add("infiniband")
        elif "Ethernet" in layers:
            found.add("roce")
    return sorted(found)
