"""A host for apt in a folder: its dpkg status, sources and lists, and a signed flat repository. The real apt-get reads it."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path


def digest(folder: Path) -> dict[str, str]:
    """Every file, folder and link below ``folder`` with what is in it and when it was last changed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = f"{path.lstat().st_mtime_ns} {hashlib.sha256(content).hexdigest()}"
    return found


@dataclasses.dataclass(frozen=True)
class Key:
    """A key that signs repositories."""

    home: Path
    public: Path

    @classmethod
    def make(cls, home: Path) -> Key:
        home.mkdir(mode=0o700)
        key = cls(home, home.parent / "key.gpg")
        key.gpg("--passphrase", "", "--quick-gen-key", "Tests <tests@lockstep.invalid>", "ed25519", "sign", "never")
        key.gpg("--output", str(key.public), "--export")
        return key

    def gpg(self, *arguments: str) -> None:
        subprocess.run(
            ["gpg", "--homedir", str(self.home), "--batch", "--yes", *arguments], check=True, capture_output=True
        )

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.public.read_bytes()).hexdigest()


def publish(folder: Path, index: str, key: Key | None) -> str:
    """A flat repository of this ``Packages`` text, signed with ``key``; returns its address."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Packages").write_text(index)
    (folder / "Packages.gz").write_bytes(gzip.compress(index.encode()))
    sums = "".join(
        f" {hashlib.sha256((folder / name).read_bytes()).hexdigest()} {(folder / name).stat().st_size} {name}\n"
        for name in ("Packages", "Packages.gz")
    )
    (folder / "Release").write_text(f"Origin: tests\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n{sums}")
    if key:
        key.gpg("--output", str(folder / "InRelease"), "--clearsign", str(folder / "Release"))
    return f"file://{folder}/"


def paragraph(name: str, version: str, *fields: str, status: str = "") -> str:
    """One package, for an index or, with ``status``, for dpkg."""
    lines = [f"Package: {name}", *([f"Status: {status}"] if status else []), f"Version: {version}", "Architecture: amd64",
             "Maintainer: x", *fields]  # fmt: skip
    if not status:
        lines += [f"Filename: ./{name}_{version}_amd64.deb", "Size: 1000", f"SHA256: {'0' * 64}"]
    return "\n".join([*lines, "Description: x", "", ""])


@dataclasses.dataclass(frozen=True)
class Host:
    """The file system of a host."""

    root: Path

    @classmethod
    def make(cls, root: Path, *, distribution: str = "ubuntu", status: str = "") -> Host:
        for folder in (
            "etc/apt/sources.list.d",
            "etc/apt/preferences.d",
            "var/lib/apt/lists",
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
            "var/lib/dpkg/triggers",
        ):
            (root / folder).mkdir(parents=True)
        (root / "etc/os-release").write_text(f"ID={distribution}\n")
        (root / "etc/apt/sources.list").write_text("# none\n")
        host = cls(root)
        host.dpkg_status(status)
        return host

    def dpkg_status(self, text: str) -> None:
        (self.root / "var/lib/dpkg/status").write_text(text)
        for line in text.splitlines():
            if line.startswith("Package: "):
                (self.root / f"var/lib/dpkg/info/{line[9:]}.list").write_text("")
                (self.root / f"var/lib/dpkg/info/{line[9:]}.md5sums").write_text("")

    def has(self, *paths: str) -> None:
        """Make files with nothing in them."""
        for path in paths:
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).touch()

    def kernels(self, installed: Iterable[str], headers: Iterable[str]) -> None:
        self.has(
            *(f"boot/vmlinuz-{kernel}" for kernel in installed), *(f"lib/modules/{one}/build/x" for one in headers)
        )

    def card(self, device: int) -> None:
        folder = self.root / f"sys/bus/pci/devices/0000:{device:04x}"
        folder.mkdir(parents=True)
        for name, text in (("vendor", "0x10de"), ("device", f"0x{device:04x}"), ("class", "0x030200")):
            (folder / name).write_text(f"{text}\n")


# Its input never ends; its end is the test's.
HOLD = "import fcntl,sys; f=open(sys.argv[1],'w'); fcntl.lockf(f,fcntl.LOCK_EX); print('held',flush=True); sys.stdin.read()"


@contextlib.contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lock, as apt does."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "held\n"
            yield child
        finally:
            child.kill()
