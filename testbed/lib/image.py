"""The node image: a root file system of Debian or Ubuntu made by mmdebstrap (no registry), and our own files on top of it."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile

from testbed.lib import archive, shell
from testbed.lib.debs import EPOCH
from testbed.lib.errors import TestbedError
from testbed.lib.layout import CACHE, ROOT, UBUNTU

OVERLAY = ROOT / "image" / "rootfs"
FAULT_FILES = ROOT / "runtime" / "lockstep-testbed-platform" / "src" / "lockstep_testbed" / "fault_files.py"
REPOSITORY = "localhost/lockstep-testbed"

# The CPU lock has wheels for Python 3.11 alone, Debian 13 has 3.13: there Debian 12's packages of 3.11 are installed beside it.
ALSO = {"trixie": ("bookworm", ("python3.11", "python3.11-dev"))}

# What a fresh host has, and no machine's own settings: names, apt sources and keys are given at the first boot.
CUSTOMISE = (
    "useradd --create-home --shell /bin/bash deploy",
    "systemctl disable haproxy.service",
    "systemctl mask getty.target console-getty.service",
    "sh -c 'rm -f /etc/ssh/ssh_host_* /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/resolv.conf /etc/hostname'",
    "sh -c 'rm -rf /etc/systemd/system/timers.target.wants/apt-daily*'",
    "sed -i 's/^hosts:.*/hosts: files dns/' /etc/nsswitch.conf",
    "sh -c ': > /etc/machine-id'",
)


def package_names(text: str) -> list[str]:
    """Names in packages.txt, without comments and empty lines."""
    return [line for line in (raw.partition("#")[0].strip() for raw in text.splitlines()) if line]


def overlay_tar() -> bytes:
    """Our files, owned by root whoever checked them out."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:

        def own(entry: tarfile.TarInfo) -> tarfile.TarInfo:
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = "root"
            entry.mtime = EPOCH
            if entry.name.startswith("etc/sudoers.d/"):
                entry.mode = 0o440
            elif not entry.issym():
                entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
            return entry

        for path in sorted(OVERLAY.rglob("*")):
            if "__pycache__" not in path.parts:
                archive.add(path, arcname=str(path.relative_to(OVERLAY)), recursive=False, filter=own)
        archive.add(FAULT_FILES, arcname="usr/lib/lockstep-testbed/fault_files.py", filter=own)
    return out.getvalue()


def _exists(tag: str) -> bool:
    return shell.run(["podman", "image", "exists", tag], check=False).returncode == 0


def ensure_base(suite: str) -> str:
    """Return the tag of the base image of a release, building it when the package list changed."""
    older, also = ALSO.get(suite, ("", ()))
    listed = [*package_names((ROOT / "image" / "packages.txt").read_text()), *also]
    digest = hashlib.sha256("\n".join([suite, *CUSTOMISE, *listed]).encode()).hexdigest()[:12]
    tag = f"{REPOSITORY}-base:{digest}"
    if _exists(tag):
        return tag
    command = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(listed)}"]
    command += [
        f"--dpkgopt=path-exclude={path}"
        for path in ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
    ]
    command += ["--dpkgopt=path-include=/usr/share/doc/*/copyright"]
    command += [f'--customize-hook=chroot "$1" {line}' for line in CUSTOMISE]
    if suite in UBUNTU:
        command.append("--components=main,universe")  # wireguard-go and python3-venv are in universe
    command += [suite, "-", *_sources(suite, older)]
    log = CACHE / f"mmdebstrap-{suite}.log"
    CACHE.mkdir(parents=True, exist_ok=True)
    with log.open("w") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as bootstrap:
        imported = subprocess.run(
            ["podman", "import", "--quiet", "-", tag], stdin=bootstrap.stdout, capture_output=True, check=False
        )
    if bootstrap.returncode or imported.returncode:
        shell.run(["podman", "rmi", "--force", tag], check=False)
        tail = "\n".join(log.read_text().splitlines()[-8:]) or imported.stderr.decode()
        raise TestbedError(f"the node image could not be built (full log: {log})\n{tail}")
    return tag


def _sources(suite: str, older: str) -> list[str]:
    """Where packages come from; none for mmdebstrap's own default: Ubuntu, and one release where this machine is no Debian."""
    if suite in UBUNTU:
        return []
    try:
        return [*archive.sources(suite, ("main",)), *(archive.sources(older, ("main",)) if older else ())]
    except TestbedError:
        if older:
            raise
        return []


def ensure(suite: str) -> str:
    """Return the tag of the node image of a release, building what is missing."""
    base = ensure_base(suite)
    overlay = overlay_tar()
    tag = f"{REPOSITORY}:{hashlib.sha256(base.encode() + overlay).hexdigest()[:12]}"
    if not _exists(tag):
        context = CACHE / "image" / suite
        context.mkdir(parents=True, exist_ok=True)
        (context / "overlay.tar").write_bytes(overlay)
        (context / "Containerfile").write_text(f"FROM {base}\nADD overlay.tar /\n")
        shell.run(["podman", "build", "--quiet", "--isolation=chroot", "--tag", tag, context])
        shell.run(["podman", "tag", tag, f"{REPOSITORY}:current"])
    return tag


def remove() -> None:
    """Remove every image that the testbed built."""
    done = shell.run(["podman", "images", "--format", "{{.Repository}}:{{.Tag}}"]).stdout.split()
    ours = [tag for tag in done if tag.startswith(REPOSITORY)]
    if ours:
        shell.run(["podman", "rmi", "--force", *ours])
