"""Who is on the testbed and where: hosts, addresses, names and paths. Pure; nothing here touches the machine."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.lib.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
STATE = ROOT / ".state"
DOMAIN = "testbed.test"
MIRROR = "mirror"
ROUTER = "router1"

REAL = "r1"
"""A host without stand-ins: NVIDIA's real packages are installed there, and no module of theirs can be loaded."""

SUITES = ("bookworm", "trixie", "noble")
"""Releases of Debian and Ubuntu that the hosts may run; the first one where nothing else is asked for."""
UBUNTU = ("noble",)

# Last byte of each host's address.
ADDRESSES = {MIRROR: 3, ROUTER: 5, "a1": 11, "a2": 12, "b1": 21, "b2": 22, REAL: 31}
GPU_HOSTS = ("a1", "a2", "b1", "b2")


@dataclass(frozen=True)
class Instance:
    """One testbed among those that may run side by side: its name, the first three bytes of its /24, its release."""

    name: str
    prefix: str
    suite: str = SUITES[0]

    @property
    def network(self) -> str:
        return f"lockstep-{self.name}"

    @property
    def state(self) -> Path:
        """Keys, seeds and facts of this instance."""
        return STATE / self.name

    def container(self, host: str) -> str:
        return f"lockstep-{self.name}-{host}"

    def address(self, host: str) -> str:
        return f"{self.prefix}.{ADDRESSES[host]}"

    def mac_address(self, host: str) -> str:
        """A locally administered MAC address of the host's own, made of its IP address.

        A machine keeps its MAC address when its power goes; a container gets a new one unless it is given one, and its
        neighbours send to the old one until they ask again.
        """
        return ":".join(["02", "00", *(f"{int(part):02x}" for part in self.address(host).split("."))])


def instance_from(environment: Mapping[str, str]) -> Instance:
    """Read LOCKSTEP_TESTBED (``testbed``), LOCKSTEP_TESTBED_PREFIX (``10.89.77``) and LOCKSTEP_TESTBED_SUITE (``bookworm``)."""
    suite = environment.get("LOCKSTEP_TESTBED_SUITE") or SUITES[0]
    if suite not in SUITES:
        raise UsageError(
            f"LOCKSTEP_TESTBED_SUITE={suite}: the testbed's hosts run {', '.join(SUITES[:-1])} or {SUITES[-1]}"
        )
    name = environment.get("LOCKSTEP_TESTBED") or "testbed"
    prefix = environment.get("LOCKSTEP_TESTBED_PREFIX") or "10.89.77"
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,20}", name):
        raise UsageError(f"LOCKSTEP_TESTBED={name}: use up to 21 lower-case letters, digits and dashes, a letter first")
    try:
        network = ipaddress.ip_network(f"{prefix}.0/24")
    except ValueError:
        raise UsageError(
            f"LOCKSTEP_TESTBED_PREFIX={prefix}: expected three bytes of a private /24, such as 10.89.77"
        ) from None
    if not network.is_private:
        raise UsageError(f"LOCKSTEP_TESTBED_PREFIX={prefix}: not a private network, use one in 10.0.0.0/8")
    return Instance(name, prefix, suite)


def current() -> Instance:
    """The instance that the environment names."""
    return instance_from(os.environ)


def hosts_for(count: int, router: bool, real: bool = False) -> tuple[str, ...]:
    """Hosts of a testbed with this many GPU hosts (2 or 4; 0 beside r1), the mirror first because the others need it."""
    if count not in (2, 4) and not (real and count == 0):
        raise UsageError(f"--hosts {count}: the testbed has 2 or 4 GPU hosts, or none beside r1 (--real)")
    return (MIRROR, *GPU_HOSTS[:count], *((ROUTER,) if router else ()), *((REAL,) if real else ()))


def known_host(name: str) -> str:
    """Return the name if the testbed has such a host."""
    if name not in ADDRESSES:
        raise UsageError(f"no host {name} on the testbed; there are {', '.join(ADDRESSES)}")
    return name


def hosts_file(instance: Instance, own: str) -> str:
    """/etc/hosts of a node: every name of the testbed, both ways."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{instance.address(host)}\t{host}.{DOMAIN} {host}" for host in sorted(ADDRESSES, key=lambda h: h != own)]
    return "\n".join(lines) + "\n"


def ssh_config(instance: Instance) -> str:
    """ssh_config that reaches every node by its bare name."""
    blocks = [
        f"Host {host}\n  HostName {instance.address(host)}\n  HostKeyAlias {instance.address(host)}\n"
        for host in ADDRESSES
    ]
    return "".join(blocks) + (
        f"Host *\n  User root\n  IdentityFile {instance.state}/id_ed25519\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {instance.state}/known_hosts\n  StrictHostKeyChecking yes\n  LogLevel ERROR\n"
    )
