"""The kernels that a host may run when the driver is loaded: the one that runs now, and what the next boot takes.

DKMS builds for a kernel whose headers are there; prebuilt modules are packages, one for each kernel. A reboot into a
kernel with neither leaves a host without a driver.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..core.commands import Run, run_command
from ..core.system import read_text

MOK_KEYS = ("var/lib/shim-signed/mok/MOK.der", "var/lib/dkms/mok.pub")


@dataclasses.dataclass(frozen=True)
class Kernels:
    """The kernels of a host.

    Attributes:
        running: ``uname -r``.
        bootable: every kernel that may run after the next boot, and the running one, first.
        headers: those of them that have headers.
        dkms: whether DKMS is installed.
        built: those of them that DKMS has built NVIDIA's modules for, of whatever version.
    """

    running: str
    bootable: tuple[str, ...]
    headers: frozenset[str]
    dkms: bool
    built: frozenset[str] = frozenset()

    def without_headers(self) -> tuple[str, ...]:
        return tuple(kernel for kernel in self.bootable if kernel not in self.headers)


def read(root: Path = Path("/"), running: str | None = None) -> Kernels:
    """The kernels of this host, from /boot, /lib/modules and the boot loader's settings."""
    running = running or os.uname().release
    installed = [path.name[len("vmlinuz-") :] for path in (root / "boot").glob("vmlinuz-*")]
    loader = "\n".join(read_text(root / name) for name in ("boot/grub/grubenv", "etc/default/grub"))
    kernels = bootable(running, installed, loader)
    headers = frozenset(kernel for kernel in kernels if (root / "lib/modules" / kernel / "build").exists())
    built = frozenset(
        kernel for kernel in kernels if any((root / "lib/modules" / kernel / "updates/dkms").glob("nvidia*.ko*"))
    )
    return Kernels(running, kernels, headers, (root / "usr/sbin/dkms").exists(), built)


def bootable(running: str, installed: Sequence[str], loader: str = "") -> tuple[str, ...]:
    """The kernels that may run next: the running one, the newest, all newer than the running one, and those GRUB names.

    Args:
        running: the running kernel.
        installed: releases of the kernels in /boot. A container has none: then the running kernel is all there is.
        loader: text of GRUB's environment and defaults, where ``saved_entry``, ``next_entry`` or ``GRUB_DEFAULT`` name one.
    """
    chosen = "\n".join(re.findall(r"^\s*(?:saved_entry|next_entry|GRUB_DEFAULT)=(.*)$", loader, re.MULTILINE))
    named = {kernel for kernel in installed if re.search(rf"(?<![\w.]){re.escape(kernel)}(?![\w.])", chosen)}
    newest = max(installed, key=_key, default=running)
    newer = {kernel for kernel in installed if _key(kernel) > _key(running)}
    rest = sorted((named | newer | {newest}) - {running}, key=_key)
    return (running, *rest)


def _key(release: str) -> list[tuple[int, str]]:
    """Order of kernel releases: numbers as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|[A-Za-z]+", release)]


def unsigned_modules_refused(root: Path = Path("/"), run: Run = run_command) -> str | None:
    """Why this kernel would refuse what DKMS builds: Secure Boot is on and DKMS' key is not enrolled; None otherwise."""
    state = run(["mokutil", "--sb-state"], 10.0)
    found = next(iter(sorted((root / "sys/firmware/efi/efivars").glob("SecureBoot-*"))), None)
    enabled = "SecureBoot enabled" in state.stdout or (
        not state.ok and found is not None and found.read_bytes()[-1:] == b"\x01"
    )
    if not enabled:
        return None
    keys = [root / name for name in MOK_KEYS if (root / name).exists()]
    if any("is already enrolled" in run(["mokutil", "--test-key", str(key)], 10.0).stdout for key in keys):
        return None
    return (
        "Secure Boot is on and DKMS' signing key is not enrolled (mokutil --import, then a reboot at the console), "
        "or take Ubuntu's signed modules: nvidia_driver_source: ubuntu, nvidia_driver_prebuilt_modules: true"
    )
