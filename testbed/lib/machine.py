"""What this machine is and has: programs to install, container runtime, limits."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

from testbed.lib import shell
from testbed.lib.errors import TestbedError

# Where older podman (Ubuntu 22.04) has its network plug-ins instead of netavark.
CNI = "/usr/lib/cni/bridge"
# Program -> Debian and Ubuntu package that brings it.
PROGRAMS = {
    "podman": "podman",
    "mmdebstrap": "mmdebstrap",
    "gpg": "gnupg",
    "iptables": "iptables",
    "ssh-keygen": "openssh-client",
    "runc": "runc",
    "/usr/bin/catatonit|/usr/libexec/podman/catatonit": "catatonit",
    f"/usr/lib/podman/netavark|/usr/libexec/podman/netavark|{CNI}": "netavark|containernetworking-plugins",
    f"/usr/lib/podman/aardvark-dns|/usr/libexec/podman/aardvark-dns|{CNI}": "aardvark-dns",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}


INOTIFY_INSTANCES = 1024


def _present(program: str) -> bool:
    return any(Path(one).exists() if one.startswith("/") else shutil.which(one) for one in program.split("|"))


def missing_packages() -> list[str]:
    """Packages to install, as alternatives ('a|b') where distributions differ."""
    return [package for program, package in PROGRAMS.items() if not _present(program)]


def install_missing() -> None:
    """Install with apt what the testbed needs and this machine lacks."""
    missing = missing_packages()
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise TestbedError(f"install these first (only Debian and Ubuntu are done for you): {' '.join(missing)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with shell.step(f"install {' '.join(missing)}"):
        shell.run(["apt-get", "update"], environment=quiet)
        chosen = [_available(alternatives.split("|")) for alternatives in missing]
        shell.run(["apt-get", "install", "--yes", "--no-install-recommends", *dict.fromkeys(chosen)], environment=quiet)


def _available(alternatives: list[str]) -> str:
    for name in alternatives:
        if "Candidate: (none)" not in (policy := shell.run(["apt-cache", "policy", name]).stdout) and policy:
            return name
    raise TestbedError(f"apt knows none of {', '.join(alternatives)}")


def choose_runtime(cgroup_types: set[str], installed: set[str]) -> str:
    """Choose the OCI runtime: crun refuses hosts that mount both cgroup versions, so there runc it is.

    ``cgroup_types`` are the file system types mounted at and below /sys/fs/cgroup.
    """
    hybrid = {"cgroup", "cgroup2"} <= cgroup_types
    order = ("runc", "crun") if hybrid or "cgroup" in cgroup_types else ("crun", "runc")
    for name in order:
        if name in installed and not (name == "crun" and hybrid):
            return name
    raise TestbedError("no container runtime that works here: install runc")


def runtime() -> str:
    """The OCI runtime for this machine, as a path."""
    types = set()
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if place.startswith("/sys/fs/cgroup") and kind.startswith("cgroup"):
            types.add(kind)
    name = choose_runtime(types, {name for name in ("crun", "runc") if shutil.which(name)})
    return str(shutil.which(name))


def raise_inotify_limit() -> None:
    """Let many systemds run: each takes a handful of the machine's inotify instances, of which there are 128 by default."""
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(limit.read_text()) < INOTIFY_INSTANCES:
        limit.write_text(f"{INOTIFY_INSTANCES}\n")
        print(f"  fs.inotify.max_user_instances is now {INOTIFY_INSTANCES} (until this machine reboots)")


def ulimits() -> list[str]:
    """--ulimit arguments no higher than our own hard limits, which a machine may forbid to raise.

    podman lowers its own process limit to its open-files limit, so the former may not exceed the latter.
    """
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    ceiling = 1_048_576
    files = ceiling if files == resource.RLIM_INFINITY else min(files, ceiling)
    processes = files if processes == resource.RLIM_INFINITY else min(processes, files)
    return ["--ulimit", f"nofile={files}:{files}", "--ulimit", f"nproc={processes}:{processes}"]
