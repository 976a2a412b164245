"""The driver's packages as dpkg knows them on a host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from ..core.commands import Run, run_command
from .versions import is_driver_version, upstream, version_key

QUERY = ("dpkg-query", "-W", "-f", "${db:Status-Want}\t${db:Status-Status}\t${Package}\t${Version}\n")
PATTERNS = (
    "nvidia-*",
    "libnvidia-*",
    "libcuda1",
    "libcudadebugger1",
    "cuda-drivers*",
    "firmware-nvidia-*",
    "linux-modules-nvidia-*",
    "linux-objects-nvidia-*",
    "linux-signatures-nvidia-*",
    "nvlsm",
    "libnvsdm*",
    "nvlink5*",
    "infiniband-diags",
    # What a desktop or a display needs of the driver: it has to go to the new version with the rest, or apt refuses.
    "xserver-xorg-video-nvidia*",
    "libgl1-nvidia-*",
    "libegl-nvidia*",
    "libgles-nvidia*",
    "libglx-nvidia*",
    "libnvcuvid1",
    "libnvoptix1",
)
NOT_THE_DRIVER = (
    r"(lib)?nvidia-(container|ctk|cuda|cudnn|cg|docker|nsight|profiler|visual|support"
    r"|installer|legacy-(?!check)|egl-wayland|vaapi|ml-dev)"
)
# Versioned on their own, whatever the driver's version is (Debian and NVIDIA alike).
_OWN_VERSIONS = (
    r"nvidia-(settings|xconfig|modprobe|persistenced|driver-pinning|egl|suspend)"
    r"|libnvidia-egl|nvlsm|nvlink5|infiniband-diags"
)
_FABRIC = r"nvidia-fabricmanager|libnvidia-nscq|libnvsdm|nvidia-imex|nvlsm|nvlink5|infiniband-diags"
_SHARED = "infiniband-diags"
"""A tool of every InfiniBand host, and part of the driver only where nvlsm needs it."""
INCOMPLETE = ("half-installed", "half-configured", "unpacked", "triggers-awaited", "triggers-pending")


class Package(TypedDict):
    """An installed package: its apt version, whether it is held, and whether dpkg left it half-way."""

    version: str
    hold: bool
    broken: bool


Packages = Mapping[str, Package]


def parse(text: str) -> dict[str, Package]:
    """Packages from the lines of ``QUERY``: ``want<TAB>status<TAB>package<TAB>version``.

    Removed packages and those that are not part of a driver (container toolkit, CUDA libraries) are left out.
    """
    packages: dict[str, Package] = {}
    for line in text.splitlines():
        want, status, name, version = (line.split("\t") + [""] * 4)[:4]
        if (status == "installed" or status in INCOMPLETE) and not re.match(NOT_THE_DRIVER, name):
            packages[name.split(":")[0]] = {"version": version, "hold": want == "hold", "broken": status != "installed"}
    if "nvlsm" not in packages:
        packages.pop(_SHARED, None)
    return packages


def installed(run: Run = run_command, deadline: float = 10.0) -> dict[str, Package]:
    """The packages of the driver on this host, by name."""
    return parse(run([*QUERY, *PATTERNS], deadline).stdout)


def purgeable(pattern: str, run: Run = run_command, deadline: float = 30.0) -> list[str]:
    """Removed packages matching ``pattern`` of which only the configuration files remain."""
    rows = [line.split("\t") for line in run([*QUERY, pattern], deadline).stdout.splitlines()]
    return sorted(row[2] for row in rows if row[1] == "config-files")


def interrupted(root: Path = Path("/")) -> bool:
    """Whether dpkg was stopped half-way and asks for ``dpkg --configure -a``."""
    updates = root / "var/lib/dpkg/updates"
    return updates.is_dir() and any(entry.name.isdigit() for entry in updates.iterdir())


def has_own_version(name: str) -> bool:
    """Whether a package is versioned apart from the driver, so that its version does not show the driver's."""
    return bool(re.match(_OWN_VERSIONS, name))


def driver_versions(packages: Packages) -> list[str]:
    """Upstream versions among the packages that make up the driver, oldest first; fabric manager and tools apart."""
    versions = {
        upstream(package["version"])
        for name, package in packages.items()
        if not has_own_version(name) and not re.match(_FABRIC, name)
    }
    return sorted((version for version in versions if is_driver_version(version)), key=version_key)


def driver_version(packages: Packages) -> str | None:
    """The one version of all packages that make up the driver; None unless they agree."""
    versions = driver_versions(packages)
    return versions[0] if len(versions) == 1 else None


def fabric_manager(packages: Packages) -> str | None:
    """The name of the fabric manager's package; None where it is not installed."""
    names = [name for name in packages if name.startswith("nvidia-fabricmanager") and not name.endswith("-dev")]
    return names[0] if names else None
