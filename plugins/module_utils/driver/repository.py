"""What an apt repository offers, read straight from its index: so a wrong version is refused before anything changes.

Nothing is installed from what is read here: apt itself verifies the signatures when packages are fetched.
"""

from __future__ import annotations

import dataclasses
import gzip
import lzma
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core.commands import Run, run_command
from ..core.system import OS_RELEASE, os_release
from .repository_access import Access
from .versions import debian_key

Offer = Mapping[str, Sequence[str]]
"""Versions by package name, the best one first."""
FLAT = "/"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_COMPRESSED = ("Packages.gz", "Packages.xz", "Packages")


class UnreadableIndex(Exception):
    """A repository's index cannot be read; the message names its address and the reason."""


def parse_packages(text: str) -> dict[str, list[str]]:
    """Versions by package name from the text of a ``Packages`` file, the newest first, as Debian orders them."""
    offered: dict[str, list[str]] = {}
    for paragraph in re.split(r"\n[ \t]*\n", text):
        fields = dict(re.findall(r"^(Package|Version): *(\S+)", paragraph, re.MULTILINE))
        if "Package" in fields and "Version" in fields:
            versions = offered.setdefault(fields["Package"], [])
            if fields["Version"] not in versions:
                versions.append(fields["Version"])
    return {name: sorted(versions, key=debian_key, reverse=True) for name, versions in offered.items()}


def parse_policy(text: str) -> dict[str, list[str]]:
    """Versions by package name from ``apt-cache policy``, those that apt prefers first.

    A version counts with the highest priority of the archives that have it, whatever a package's own pin says; what only
    dpkg knows, as installed, is not on offer. Backports (100) come after a release (500), and the newer of equals first.
    """
    found: dict[str, dict[str, int]] = {}
    name = version = ""
    for line in text.splitlines():
        if match := re.match(r"^(\S+):$", line):
            name, version = match.group(1), ""
        elif match := re.match(r"^ (?:\*\*\*|   ) (\S+) -?\d+", line):
            version = match.group(1)
        elif version and (
            match := re.match(r"^ {6,}(-?\d+) ([^/\s]\S*)", line)
        ):  # /var/lib/dpkg/status begins with a slash
            priority = max(int(match.group(1)), found.setdefault(name, {}).get(version, 0))
            if priority > 0:
                found[name][version] = priority
    return {
        name: sorted(versions, key=lambda version: (versions[version], debian_key(version)), reverse=True)
        for name, versions in found.items()
        if versions
    }


@dataclasses.dataclass(frozen=True)
class Repository:
    """An apt repository.

    Attributes:
        url: http, https or file.
        suite: one that ends with a slash is a folder of a flat repository, ``/`` itself as NVIDIA's; any other is one of
            ``dists/``, and has ``components``.
    """

    url: str
    suite: str = FLAT
    components: tuple[str, ...] = ()

    @property
    def flat(self) -> bool:
        return self.suite.endswith("/")

    def indexes(self, architecture: str) -> list[str]:
        """Addresses of the folders that hold a ``Packages`` file each."""
        url = self.url.rstrip("/")
        if self.flat:
            return [f"{url}/{self.suite.strip('/')}".rstrip("/")]
        return [f"{url}/dists/{self.suite}/{name}/binary-{architecture}" for name in self.components]

    def description(self, keyring: str) -> str:
        """As a ``.sources`` file has it; the role's template says the same."""
        parts = "" if self.flat else f"Components: {' '.join(self.components)}\n"
        return f"Types: deb\nURIs: {self.url}\nSuites: {self.suite}\n{parts}Signed-By: {keyring}\n"


def offered(
    repository: Repository, access: Access | None = None, *, deadline: float = 20.0, machine: str = ""
) -> dict[str, list[str]]:
    """Versions by package name that a repository offers now.

    Args:
        access: what it lets this host in by.
        machine: the hardware's name, this machine's where it is left out.

    Raises:
        UnreadableIndex: it cannot be read within ``deadline`` seconds, or what comes back is no index.
    """
    architecture = _ARCHITECTURES.get(machine or os.uname().machine, machine)
    found: dict[str, list[str]] = {}
    for folder in repository.indexes(architecture):
        for name, versions in _index(folder, access or Access(), deadline).items():
            merged = {*found.get(name, ()), *versions}
            found[name] = sorted(merged, key=debian_key, reverse=True)
    return found


def _index(folder: str, access: Access, deadline: float) -> dict[str, list[str]]:
    from urllib.error import HTTPError

    reasons = []
    for name in _COMPRESSED:
        address = f"{folder}/{name}"
        try:
            text = _unpacked(name, fetch(address, deadline, access))
        except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
            reasons.append(f"{name}: {getattr(error, 'reason', None) or error}")
            if not isinstance(error, HTTPError) and not isinstance(error, FileNotFoundError):
                break
            continue
        packages = parse_packages(text)
        if packages or not text.strip():
            return packages
        reasons.append(f"{name}: holds no package")
    raise UnreadableIndex(f"{folder}: its package index cannot be read ({'; '.join(reasons)})")


def offered_by_apt(names: Sequence[str], *, deadline: float = 20.0, run: Run = run_command) -> dict[str, list[str]]:
    """Versions of ``names`` that apt on this host knows from its own lists (the distribution's archive), in its own order."""
    answer = run(["apt-cache", "policy", *names], deadline)
    if answer.returncode is None:
        raise UnreadableIndex("apt-cache policy gave no answer: " + (answer.stderr or f"ended after {deadline:g} s"))
    return parse_policy(answer.stdout)


def this_distribution(release: Path = OS_RELEASE) -> str:
    """``Debian``, ``Ubuntu`` or what else the system calls itself, spelt as Ansible's facts spell it."""
    fields = os_release(release)
    known = {"debian": "Debian", "ubuntu": "Ubuntu"}
    return known.get(fields.get("ID", "")) or fields.get("NAME", "an unknown system")


def fetch(address: str, deadline: float, access: Access | None = None) -> bytes:
    """What lies at an address (http, https or file), within ``deadline`` seconds.

    A server that it leads on to is not shown the password.

    Raises:
        OSError: it cannot be read.
        ValueError: the scheme is unknown.
    """
    # Imported where it is needed: it takes longer than the rest of a probe, and most probes read no index.
    import urllib.parse
    import urllib.request

    parts = urllib.parse.urlsplit(address)
    if parts.scheme == "file":
        return Path(urllib.parse.unquote(parts.path)).read_bytes()
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"unknown scheme {parts.scheme!r}, expected http, https or file")
    request, access = urllib.request.Request(address), access or Access()
    if access.username:
        request.add_unredirected_header("Authorization", access.header())
    with access.tls() as context, urllib.request.urlopen(request, timeout=deadline, context=context) as reply:
        body: bytes = reply.read()
        return body


def _unpacked(name: str, body: bytes) -> str:
    if name.endswith(".gz"):
        body = gzip.decompress(body)
    elif name.endswith(".xz"):
        body = lzma.decompress(body)
    return body.decode("utf-8", "replace")
