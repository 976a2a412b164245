"""NVIDIA's real packages out of Debian's archive: fetched once, offered to the nodes by the mirror as the archive offers them.

Only what some driver of the release needs is copied, with the archive's own paragraphs, suites and priorities (backports are
``NotAutomatic``); the signature is the testbed's. So the nodes install real packages, and their network stays internal.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from testbed.lib import archive, debs, shell
from testbed.lib.errors import TestbedError
from testbed.lib.layout import CACHE

FAMILY = "nvidia-* libnvidia-* libcuda1 firmware-nvidia-*"
PARTS = ("nvidia-smi", "libcuda1", "libnvidia-ml1", "libnvidia-cfg1", "nvidia-alternative", "firmware-nvidia-gsp")
ALSO = ("nvidia-persistenced", "nvidia-modprobe")
"""Tools with versions of their own."""
MODULES = {
    "open": ("nvidia-open-kernel-dkms", "nvidia-open-kernel-support"),
    "proprietary": ("nvidia-kernel-dkms", "nvidia-kernel-support"),
}
RELEASE_FIELDS = ("Origin", "Label", "Suite", "Codename", "NotAutomatic", "ButAutomaticUpgrades")


@dataclass(frozen=True)
class Offer:
    """One package version as a suite of the archive has it."""

    suite: str
    component: str
    name: str
    version: str
    filename: str
    paragraph: str


def suites(release: str) -> tuple[str, ...]:
    """The suites of a release that drivers come from."""
    return (release, f"{release}-updates", f"{release}-security", f"{release}-backports")


def offers(index: str, suite: str, component: str) -> Iterator[Offer]:
    """The packages of one ``Packages`` file."""
    for paragraph in index.strip().split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Filename): *(\S+)", paragraph, re.MULTILINE))
        if len(fields) == 3:
            yield Offer(suite, component, fields["Package"], fields["Version"], fields["Filename"], paragraph)


def drivers(found: Iterable[Offer]) -> list[tuple[str, str]]:
    """Every (flavour, package version) of a driver, once each, in the order in which the suites have them."""
    flavor_of = {names[0]: flavor for flavor, names in MODULES.items()}
    return list(dict.fromkeys((flavor_of[one.name], one.version) for one in found if one.name in flavor_of))


def facts(release: str, found: Iterable[Offer]) -> dict[str, str]:
    """The upstream version of each driver by ``real_<suite>_<flavour>``, for inventories and scenarios."""
    result = {}
    for one in found:
        for flavor, names in MODULES.items():
            if one.name == names[0]:
                kind = one.suite.removeprefix(release).lstrip("-") or "release"
                result[f"real_{release}_{kind}_{flavor}"] = one.version
    return result


def wanted(flavor: str, version: str) -> list[str]:
    """Arguments of ``apt-get install`` for one driver."""
    return [*(f"{name}={version}" for name in (*MODULES[flavor], *PARTS)), *ALSO]


def pins(version: str) -> str:
    """Preferences that keep the whole family at one package version, as the role's do."""
    return f"Package: {FAMILY}\nPin: version {version}\nPin-Priority: 1001\n"


@dataclass(frozen=True)
class Apt:
    """An apt in a folder of its own, with the dpkg status of a fresh node."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, release: str, image: str) -> Apt:
        for name in ("state/lists/partial", "archives/partial", "preferences.d", "log"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        mounted = Path(shell.run(["podman", "image", "mount", image]).stdout.strip())
        shutil.copyfile(mounted / "var/lib/dpkg/status", folder / "status")
        shell.run(["podman", "image", "umount", image])
        (folder / "sources.list").write_text(
            "\n".join(archive.sources(release, extra=(f"{release}-backports",))) + "\n"
        )
        settings = {
            "Dir::State": f"{folder}/state/", "Dir::State::status": f"{folder}/status", "Dir::State::lists": "lists/",
            "Dir::State::extended_states": f"{folder}/extended_states",
            "Dir::Cache": f"{folder}/", "Dir::Cache::archives": f"{folder}/archives/", "Dir::Log": f"{folder}/log",
            "Dir::Etc::SourceList": f"{folder}/sources.list", "Dir::Etc::SourceParts": "-",
            "Dir::Etc::Preferences": f"{folder}/preferences", "Dir::Etc::PreferencesParts": f"{folder}/preferences.d",
            "Acquire::Languages": "none", "APT::Sandbox::User": "root", "Debug::NoLocking": "1",
            "Acquire::GzipIndexes": "false", "APT::Keep-Downloaded-Packages": "true",
        }  # fmt: skip
        hooks = (
            "DPkg::Post-Invoke",
            "APT::Update::Post-Invoke",
        )  # of this machine: they would throw away what is fetched
        lines = [*(f'{key} "{value}";' for key, value in settings.items()), *(f"#clear {hook};" for hook in hooks)]
        (folder / "apt.conf").write_text("\n".join([*lines, ""]))
        return cls(folder)

    def run(self, *arguments: str) -> str:
        command = ["apt-get", "-c", self.folder / "apt.conf", "-q", "-y", *arguments]
        return shell.run(command, environment={"LC_ALL": "C"}).stdout

    def lists(self) -> list[tuple[str, str, str]]:
        """Suite, component and file of every ``Packages`` list."""
        shown = self.run("indextargets", "--format", "$(RELEASE)|$(COMPONENT)|$(FILENAME)", "Created-By: Packages")
        return [(suite, component, path) for suite, component, path in (line.split("|") for line in shown.splitlines())]

    def fetch(self, flavor: str, version: str) -> None:
        """Download everything that installing this driver on a fresh node takes."""
        (self.folder / "preferences").write_text(pins(version))
        self.run("--download-only", "--no-install-recommends", "install", *wanted(flavor, version))

    def fetched(self) -> dict[tuple[str, str], Path]:
        """The downloaded files by package name and version."""
        found = {}
        for path in sorted((self.folder / "archives").glob("*.deb")):
            name, version, _architecture = path.stem.split("_")
            found[name, version.replace("%3a", ":")] = path
        return found


def release_file(fields: Mapping[str, str], components: Iterable[str], files: Mapping[str, bytes]) -> str:
    """A Release file: the archive's own fields, and the checksums of what is offered here."""
    lines = [f"{key}: {value}" for key, value in fields.items()]
    lines += ["Architectures: amd64", f"Components: {' '.join(components)}"]
    lines += [f"Date: {formatdate(debs.EPOCH, usegmt=True)}", "SHA256:"]
    lines += [f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}" for name, data in files.items()]
    return "\n".join(lines) + "\n"


def publish(place: Path, apt: Apt, release: str, found: list[Offer], signer: debs.Signer) -> None:
    """Write ``dists`` and ``pool`` below ``place``."""
    have = apt.fetched()
    names = {name for name, _version in have}
    kept = [one for one in found if one.name in names]
    for one in kept:
        path = have.get((one.name, one.version))
        if path:
            target = place / one.filename
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            os.link(path, target)
    for suite in suites(release):
        folder = place / "dists" / suite
        shutil.rmtree(folder, ignore_errors=True)
        files: dict[str, bytes] = {}
        for component in archive.COMPONENTS:
            mine = [one.paragraph for one in kept if (one.suite, one.component) == (suite, component)]
            text = "".join(f"{paragraph}\n\n" for paragraph in mine).encode()
            for name, data in (("Packages", text), ("Packages.gz", gzip.compress(text, mtime=debs.EPOCH))):
                files[f"{component}/binary-amd64/{name}"] = data
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        fields = _release_fields(apt, suite)
        (folder / "Release").write_text(release_file(fields, archive.COMPONENTS, files))
        signer.sign(folder / "Release")


def _release_fields(apt: Apt, suite: str) -> dict[str, str]:
    """Those fields of the archive's own Release file that apt goes by."""
    path = next((apt.folder / "state/lists").glob(f"*_dists_{suite}_InRelease"), None)
    if path is None:
        raise TestbedError(f"apt has no Release file of {suite}")
    found = dict(re.findall(r"^([A-Za-z]+): (.+)$", path.read_text(errors="replace"), re.MULTILINE))
    return {key: found[key] for key in RELEASE_FIELDS if key in found}


def make(release: str, image: str, place: Path, signer: debs.Signer) -> dict[str, str]:
    """Fetch and publish the drivers of a Debian release; returns ``facts``."""
    apt = Apt.make(CACHE / "debian" / release, release, image)
    apt.run("update")
    found = [
        one
        for suite, component, path in apt.lists()
        for one in offers(Path(path).read_text(errors="replace"), suite, component)
    ]
    for flavor, version in drivers(found):
        apt.fetch(flavor, version)
    publish(place, apt, release, found, signer)
    known = facts(release, found)
    (apt.folder / "drivers.json").write_text(json.dumps(known, indent=2))
    return known
