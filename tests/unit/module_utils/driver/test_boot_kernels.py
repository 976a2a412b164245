"""Which kernels may run next, and whether they would accept what DKMS builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import boot_kernels

OLD, NOW, NEW = "6.8.0-9-generic", "6.8.0-45-generic", "6.8.0-60-generic"


@pytest.mark.parametrize(
    ("installed", "loader", "kernels"),
    [
        ([], "", (NOW,)),  # a container
        ([NOW], "", (NOW,)),
        ([OLD, NOW], "", (NOW,)),
        ([OLD, NOW, NEW], "GRUB_DEFAULT=0", (NOW, NEW)),
        ([OLD], "", (NOW, OLD)),  # the running kernel was removed: only the old one is left
        ([OLD, NOW], f'GRUB_DEFAULT="Advanced options for Ubuntu>Ubuntu, with Linux {OLD}"', (NOW, OLD)),
        ([OLD, NOW, NEW], f"saved_entry=gnulinux-advanced-1f>gnulinux-{OLD}-advanced-1f", (NOW, OLD, NEW)),
        ([OLD, NOW], f"# saved_entry={OLD}", (NOW,)),
    ],
)
def test_kernels_of_the_next_boot(installed: list[str], loader: str, kernels: tuple[str, ...]) -> None:
    assert boot_kernels.bootable(NOW, installed, loader) == kernels


ENROLLED = {"--sb-state": "SecureBoot enabled\n", "--test-key": "mok.pub is already enrolled\n"}


@pytest.mark.parametrize(
    ("files", "mokutil", "refused"),
    [
        ([], {}, False),
        ([], {"--sb-state": "SecureBoot disabled\n"}, False),
        ([], {"--sb-state": "SecureBoot enabled\n"}, True),
        (["var/lib/dkms/mok.pub"], {**ENROLLED, "--test-key": "mok.pub is not enrolled\n"}, True),
        (["var/lib/dkms/mok.pub"], ENROLLED, False),
    ],
)
def test_secure_boot(tmp_path: Path, files: list[str], mokutil: dict[str, str], refused: bool) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    reason = boot_kernels.unsigned_modules_refused(
        tmp_path, lambda argv, _deadline: CommandResult(0, mokutil.get(argv[1], ""))
    )
    assert ("signing key is not enrolled" in (reason or "")) is refused


@pytest.mark.parametrize(("value", "refused"), [(b"\6\0\0\0\1", True), (b"\6\0\0\0\0", False)])
def test_secure_boot_without_mokutil(tmp_path: Path, value: bytes, refused: bool) -> None:
    folder = tmp_path / "sys/firmware/efi/efivars"
    folder.mkdir(parents=True)
    (folder / "SecureBoot-8be4df61").write_bytes(value)
    missing = CommandResult(None, stderr="No such file or directory: 'mokutil'")
    assert bool(boot_kernels.unsigned_modules_refused(tmp_path, lambda _argv, _deadline: missing)) is refused
