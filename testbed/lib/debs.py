"""Debian packages and a flat, signed repository of them, written in Python: the same bytes every time, in a second or two.

Format: deb(5). Repository: the "flat" kind that NVIDIA publishes (``deb [signed-by=…] URL /``).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testbed.lib import shell
from testbed.lib.driver_catalog import FLAVOURS, RELEASES, Package, packages
from testbed.lib.layout import ROOT

EPOCH = 1_767_225_600  # 2026-01-01, for every file: nothing here depends on when it is built
KEYRING = "lockstep-testbed-archive-keyring.gpg"
SHA1_KEYRING = "lockstep-testbed-sha1-keyring.gpg"
SHA1_FLAVOUR = "debian12-sha1"
"""The same repository as debian12, signed with a key whose self-signature is SHA-1, as old keys' are: apt 3 refuses it."""
SOURCES = ROOT / "driver"
LIBRARIES = "/usr/lib/x86_64-linux-gnu"


@dataclass
class Contents:
    """What a package carries: files (path -> bytes, mode), links (path -> target) and maintainer scripts."""

    files: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    scripts: dict[str, bytes] = field(default_factory=dict)


def driver_version(package: Package) -> str:
    """Return the upstream version: 550.90.07 for 550.90.07-0ubuntu1."""
    return package.version.partition("-")[0]


def _source(name: str, **marks: str) -> bytes:
    text = (SOURCES / name).read_text()
    for mark, value in marks.items():
        text = text.replace(f"@{mark}@", value)
    return text.encode()


def contents(package: Package) -> Contents:
    """Return what a package of the catalogue carries."""
    version = driver_version(package)
    result = Contents()
    match package.payload.partition(":"):
        case "compute", _, _:
            for library in ("libnvidia-ml", "libcuda"):
                result.files[f"{LIBRARIES}/{library}.so.{version}"] = (
                    f"stand-in {library} {version}\n".encode(),
                    0o644,
                )
                result.links[f"{LIBRARIES}/{library}.so.1"] = f"{library}.so.{version}"
            result.scripts["postinst"] = _source("compute-postinst", VERSION=version)
        case "utils", _, _:
            result.files["/usr/bin/nvidia-smi"] = (_source("nvidia-smi", VERSION=version), 0o755)
        case "persistenced", _, _:
            result.files["/usr/bin/nvidia-persistenced"] = (_source("nvidia-persistenced", VERSION=version), 0o755)
            result.files["/lib/systemd/system/nvidia-persistenced.service"] = (
                _source("nvidia-persistenced.service"),
                0o644,
            )
        case "fabricmanager", _, _:
            result.files["/usr/bin/nv-fabricmanager"] = (_source("nv-fabricmanager", VERSION=version), 0o755)
            result.files["/lib/systemd/system/nvidia-fabricmanager.service"] = (
                _source("nvidia-fabricmanager.service"),
                0o644,
            )
            result.files["/usr/share/nvidia/nvswitch/fabricmanager.cfg"] = (b"LOG_LEVEL=4\n", 0o644)
        case ("dkms-open" | "dkms-proprietary") as kind, _, _:
            licence = "Dual MIT/GPL" if kind == "dkms-open" else "NVIDIA"
            result.files[f"/usr/src/nvidia-{version}/dkms.conf"] = (f'PACKAGE_VERSION="{version}"\n'.encode(), 0o644)
            result.scripts["postinst"] = _source("dkms-postinst", VERSION=version, LICENSE=licence)
            result.scripts["prerm"] = _source("dkms-prerm", VERSION=version)
        case "pin", _, target:
            pin = f"{target}-*" if "." in target else f"{target}.*"
            text = f"Package: *nvidia* cuda-drivers* libcuda1\nPin: version {pin}\nPin-Priority: 1001\n"
            result.files["/etc/apt/preferences.d/nvidia-driver-pinning"] = (text.encode(), 0o644)
    return result


def _tar(files: Mapping[str, tuple[bytes, int]], links: Mapping[str, str]) -> bytes:
    """A gzipped tar of root-owned files below ./, with the directories they need."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as archive:
        seen: set[str] = set()

        def add(name: str, kind: bytes, mode: int, data: bytes = b"", target: str = "") -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.mtime, entry.size, entry.linkname = kind, mode, EPOCH, len(data), target
            entry.uname = entry.gname = "root"
            archive.addfile(entry, io.BytesIO(data))

        add("./", tarfile.DIRTYPE, 0o755)
        for path in sorted({*files, *links}):
            relative = path.lstrip("/")
            for parent in reversed(Path(relative).parents[:-1]):
                if str(parent) not in seen:
                    seen.add(str(parent))
                    add(f"./{parent}/", tarfile.DIRTYPE, 0o755)
            if path in links:
                add(f"./{relative}", tarfile.SYMTYPE, 0o777, target=links[path])
            else:
                data, mode = files[path]
                add(f"./{relative}", tarfile.REGTYPE, mode, data)
    return gzip.compress(plain.getvalue(), mtime=EPOCH)


def control(package: Package) -> str:
    """The package's control paragraph, without a trailing newline."""
    lines = [
        f"Package: {package.name}",
        f"Version: {package.version}",
        "Architecture: amd64",
        "Maintainer: Lockstep testbed <testbed@lockstep.invalid>",
        "Section: non-free/libs",
        "Priority: optional",
    ]
    if package.depends:
        lines.append(f"Depends: {', '.join(package.depends)}")
    if package.replaces:
        lines += [f"{key}: {', '.join(package.replaces)}" for key in ("Provides", "Conflicts", "Replaces")]
    lines.append(f"Description: stand-in for NVIDIA's {package.name} on the Lockstep testbed")
    return "\n".join(lines)


def build(package: Package) -> bytes:
    """Return the .deb."""
    carried = contents(package)
    meta = {"/control": ((control(package) + "\n").encode(), 0o644)}
    meta |= {f"/{name}": (data, 0o755) for name, data in carried.scripts.items()}
    if any(path.startswith("/etc/") for path in carried.files):
        meta["/conffiles"] = (
            "".join(f"{path}\n" for path in carried.files if path.startswith("/etc/")).encode(),
            0o644,
        )
    members = (
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", _tar(meta, {})),
        ("data.tar.gz", _tar(carried.files, carried.links)),
    )
    result = b"!<arch>\n"
    for name, data in members:
        result += (
            f"{name:<16}{EPOCH:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
            + data
            + b"\n" * (len(data) % 2)
        )
    return result


def index(entries: Sequence[tuple[Package, str, bytes]]) -> str:
    """The Packages file of (package, file name, .deb) entries."""
    return "".join(
        f"{control(package)}\nFilename: ./{name}\nSize: {len(data)}\nMD5sum: {hashlib.md5(data).hexdigest()}\n"
        f"SHA256: {hashlib.sha256(data).hexdigest()}\n\n"
        for package, name, data in entries
    )


def release(files: Mapping[str, bytes], label: str) -> str:
    """The Release file of a flat repository."""
    lines = [
        "Origin: NVIDIA",
        f"Label: {label}",
        "Architectures: amd64",
        "Date: Thu, 01 Jan 2026 00:00:00 UTC",
        "SHA256:",
    ]
    return (
        "\n".join(
            lines + [f" {hashlib.sha256(data).hexdigest()} {len(data):>8} {name}" for name, data in files.items()]
        )
        + "\n"
    )


class Signer:
    """The repository's key: made once for a checkout, kept in its cache."""

    def __init__(self, home: Path, options: Sequence[str] = ()) -> None:
        self.home = home
        self.options = options

    def _gpg(self, *arguments: str, stdin: bytes | None = None) -> str:
        return shell.run(
            ["gpg", "--homedir", str(self.home), "--batch", "--yes", *self.options, *arguments], stdin=stdin
        ).stdout

    def prepare(self, keyring: Path) -> None:
        """Make the key unless there is one, and export its public half as a keyring for Signed-By."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if "testbed@lockstep.invalid" not in self._gpg("--list-secret-keys"):
            self._gpg(
                "--passphrase",
                "",
                "--quick-gen-key",
                "Lockstep testbed <testbed@lockstep.invalid>",
                "rsa3072",
                "sign",
                "never",
            )
        self._gpg("--output", str(keyring), "--export", "testbed@lockstep.invalid")

    def sign(self, release_file: Path) -> None:
        """Write InRelease and Release.gpg beside a Release file."""
        self._gpg("--output", str(release_file.parent / "InRelease"), "--clearsign", str(release_file))
        self._gpg("--output", str(release_file.parent / "Release.gpg"), "--armor", "--detach-sign", str(release_file))

    def close(self) -> None:
        """End the agent that gpg started for this key."""
        shell.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False)


def publish(directory: Path, signer: Signer) -> str:
    """Write both repositories below ``directory``; return the SHA-256 of the keyring that goes with them."""
    keyring = directory / KEYRING
    directory.mkdir(parents=True, exist_ok=True)
    signer.prepare(keyring)
    for flavour in FLAVOURS:
        place = directory / flavour / "x86_64"
        place.mkdir(parents=True, exist_ok=True)
        entries = []
        for version in RELEASES:
            for package in packages(version, flavour):
                name, data = f"{package.name}_{package.version}_amd64.deb", build(package)
                (place / name).write_bytes(data)
                entries.append((package, name, data))
        listing = index(entries).encode()
        files = {"Packages": listing, "Packages.gz": gzip.compress(listing, mtime=EPOCH)}
        for name, data in files.items():
            (place / name).write_bytes(data)
        (place / "Release").write_text(release(files, f"NVIDIA CUDA {flavour} (testbed)"))
        signer.sign(place / "Release")
        (place / KEYRING).write_bytes(keyring.read_bytes())
    signer.close()
    _publish_with_sha1_key(directory, Signer(signer.home.parent / "gnupg-sha1", ("--cert-digest-algo", "SHA1")))
    return hashlib.sha256(keyring.read_bytes()).hexdigest()


def _publish_with_sha1_key(directory: Path, signer: Signer) -> None:
    """The index of debian12 alone: a key that is refused keeps everything else from being fetched."""
    signer.prepare(directory / SHA1_KEYRING)
    source, place = directory / "debian12" / "x86_64", directory / SHA1_FLAVOUR / "x86_64"
    place.mkdir(parents=True, exist_ok=True)
    for name in ("Packages", "Packages.gz", "Release"):
        (place / name).write_bytes((source / name).read_bytes())
    signer.sign(place / "Release")
    signer.close()
