"""NVIDIA's driver packages by name, as its own repositories have them: the table behind the stand-in repository.

Two namings exist, and the testbed serves both, each as a flat repository of its own:

- ``ubuntu2204``: names carry the branch until 580 (``nvidia-utils-550``) and lose it from 590 on (``nvidia-utils``);
- ``debian12``: names never carry it, but for fabric manager, NSCQ and the meta packages until 580.

Sources: NVIDIA Driver Installation Guide r590 ("Version locking", "Ubuntu 590 and later packages"); package lists of
installed hosts for 550.90.07-0ubuntu1 and 580; nvidia-kernel-open-dkms_570.133.20-1_amd64.deb in repos/debian12.
Dependencies are ``>=`` as in the real packages: installing an old meta package draws in new parts unless all are pinned.
"""

from __future__ import annotations

from dataclasses import dataclass

RELEASES = ("550.90.07", "550.127.05", "580.95.05", "590.48.01", "595.58.03")
FLAVOURS = ("ubuntu2204", "debian12")
FIRST_UNSUFFIXED = 590
FIRST_OPEN_META = 560  # nvidia-open appeared with branch 560
FIRST_PINNING = 580


@dataclass(frozen=True)
class Package:
    """One binary package. ``payload`` names what it carries (see debs.py); empty for those that only depend on others."""

    name: str
    version: str
    depends: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()  # conflicts with, provides and replaces these
    payload: str = ""


def branch(version: str) -> int:
    """Return the driver branch: 550 for 550.90.07."""
    return int(version.split(".", maxsplit=1)[0])


def packages(version: str, flavour: str) -> tuple[Package, ...]:
    """Return every package of one driver release in one naming."""
    make = {"ubuntu2204": _ubuntu, "debian12": _debian}[flavour]
    return (*make(version), *_common(version), *_pinning(version))


def _ubuntu(version: str) -> tuple[Package, ...]:
    number = branch(version)
    suffix = f"-{number}" if number < FIRST_UNSUFFIXED else ""
    full = f"{version}-0ubuntu1" if number < FIRST_UNSUFFIXED else f"{version}-1ubuntu1"
    old = [f"-{branch(release)}" for release in RELEASES if branch(release) < FIRST_UNSUFFIXED]

    def named(stem: str, tail: str = "") -> str:
        return f"{stem}{suffix}{tail}"

    def package(stem: str, *depends: str, tail: str = "", payload: str = "", virtual: str = "") -> Package:
        """A package that takes the place of its namesakes of other branches."""
        name = named(stem, tail)
        others = {f"{stem}{other}{tail}" for other in (*dict.fromkeys(old), "")} - {name}
        rivals = sorted({*others, virtual} - {""})
        return Package(
            name, full, tuple(f"{word} (>= {version})" for word in depends), tuple(rivals), payload
        )  # fmt: skip

    firmware = f"nvidia-firmware-{number}-{version}" if suffix else "nvidia-firmware"
    persistenced = number >= FIRST_PINNING
    parts = [
        Package(firmware, full),
        package("nvidia-kernel-common", firmware),
        package("libnvidia-common"),
        package("libnvidia-cfg1"),
        package("libnvidia-compute", payload="compute"),
        package("libnvidia-decode", named("libnvidia-compute")),
        package("libnvidia-encode", named("libnvidia-decode")),
        package("libnvidia-extra"),
        package("libnvidia-fbc1"),
        package("libnvidia-gl", named("libnvidia-common")),
        package("nvidia-utils", named("libnvidia-compute"), payload="utils"),
        package(
            "nvidia-compute-utils",
            named("libnvidia-compute"),
            *(["nvidia-persistenced"] if persistenced else []),
            payload="" if persistenced else "persistenced",
        ),
        Package("nvidia-modprobe", full),
        package("xserver-xorg-video-nvidia", named("libnvidia-cfg1")),
    ]
    if persistenced:
        earlier = tuple(f"nvidia-compute-utils{tail}" for tail in dict.fromkeys(old) if tail < f"-{FIRST_PINNING}")
        parts.append(Package("nvidia-persistenced", full, replaces=earlier, payload="persistenced"))
    for tail in ("", "-open"):
        kind = "dkms-open" if tail else "dkms-proprietary"
        dkms, source = named("nvidia-dkms", tail), named("nvidia-kernel-source", tail)
        common, compute = named("nvidia-kernel-common"), named("libnvidia-compute")
        parts += [
            package("nvidia-kernel-source", tail=tail, virtual="nvidia-kernel-source-any"),
            package("nvidia-dkms", source, common, tail=tail, payload=kind, virtual="nvidia-dkms-kernel"),
            package("nvidia-headless-no-dkms", common, compute, named("nvidia-compute-utils"), named("libnvidia-cfg1"),
                    tail=tail, virtual="nvidia-headless-no-dkms-any"),
            package("nvidia-headless", named("nvidia-headless-no-dkms", tail), dkms, tail=tail, virtual="nvidia-headless-any"),
            package("nvidia-driver", dkms, common, compute, named("nvidia-utils"), named("nvidia-compute-utils"),
                    named("libnvidia-gl"), named("libnvidia-decode"), named("libnvidia-encode"), named("libnvidia-extra"),
                    named("libnvidia-fbc1"), named("libnvidia-cfg1"), named("xserver-xorg-video-nvidia"), tail=tail,
                    virtual="nvidia-driver-any"),
        ]  # fmt: skip
    parts.append(Package(named("cuda-drivers"), f"{version}-1", (f"{named('nvidia-driver')} (>= {version})",)))
    if suffix:
        parts.append(Package("cuda-drivers", f"{version}-1", (f"{named('cuda-drivers')} (>= {version})",)))
    if number >= FIRST_OPEN_META:
        parts.append(
            Package(named("nvidia-open"), f"{version}-1", (f"{named('nvidia-driver', '-open')} (>= {version})",))
        )
    return tuple(parts)


def _debian(version: str) -> tuple[Package, ...]:
    number = branch(version)
    full = f"{version}-1"
    suffix = f"-{number}" if number < FIRST_UNSUFFIXED else ""

    def package(name: str, *depends: str, payload: str = "", replaces: tuple[str, ...] = ()) -> Package:
        return Package(name, full, tuple(f"{word} (>= {version})" for word in depends), replaces, payload)

    parts = [
        package("firmware-nvidia-gsp"),
        package("libnvidia-ml1", payload="compute"),
        package("libcuda1", "libnvidia-ptxjitcompiler1"),
        package("libnvidia-ptxjitcompiler1"),
        package("libnvidia-nvvm4"),
        package("libnvidia-cfg1"),
        package("nvidia-smi", "libnvidia-ml1", payload="utils"),
        package("nvidia-modprobe"),
        package("nvidia-persistenced", "libnvidia-cfg1", payload="persistenced"),
        package("nvidia-kernel-support", "firmware-nvidia-gsp", "nvidia-modprobe"),
        package(
            "nvidia-kernel-dkms", "nvidia-kernel-support", payload="dkms-proprietary", replaces=("nvidia-kernel-any",)
        ),
        package(
            "nvidia-kernel-open-dkms", "nvidia-kernel-support", payload="dkms-open", replaces=("nvidia-kernel-any",)
        ),
        package("nvidia-driver-cuda", "libcuda1", "libnvidia-nvvm4", "nvidia-smi", "nvidia-persistenced"),
        package("nvidia-driver-libs"),
        package("nvidia-driver-bin"),
        package("xserver-xorg-video-nvidia"),
        package("nvidia-driver", "nvidia-driver-libs", "nvidia-driver-bin", "xserver-xorg-video-nvidia"),
        package("cuda-drivers", "nvidia-driver", "nvidia-driver-cuda", "nvidia-kernel-dkms"),
    ]
    if suffix:
        parts.append(package(f"cuda-drivers{suffix}", "cuda-drivers"))
    if number >= FIRST_OPEN_META:
        parts.append(package(f"nvidia-open{suffix}", "nvidia-driver", "nvidia-driver-cuda", "nvidia-kernel-open-dkms"))
    return tuple(parts)


def _common(version: str) -> tuple[Package, ...]:
    """Fabric manager and NSCQ: named alike in both repositories."""
    number = branch(version)
    suffix = f"-{number}" if number < FIRST_UNSUFFIXED else ""
    others = [f"-{branch(release)}" for release in RELEASES if branch(release) < FIRST_UNSUFFIXED]

    def rivals(stem: str) -> tuple[str, ...]:
        return tuple(sorted({f"{stem}{other}" for other in (*others, "")} - {f"{stem}{suffix}"}))

    return (
        Package(f"nvidia-fabricmanager{suffix}", f"{version}-1", (), rivals("nvidia-fabricmanager"), "fabricmanager"),
        Package(f"libnvidia-nscq{suffix}", f"{version}-1", (), rivals("libnvidia-nscq")),
    )


def _pinning(version: str) -> tuple[Package, ...]:
    """nvidia-driver-pinning-<branch> and -<version>: installing one fixes what apt may choose."""
    number = branch(version)
    if number < FIRST_PINNING:
        return ()
    # The virtual name lets one of them be installed at a time.
    rivals = ("nvidia-driver-pinning",)
    return (
        Package(f"nvidia-driver-pinning-{version}", f"{version}-1", (), rivals, f"pin:{version}"),
        Package(f"nvidia-driver-pinning-{number}", f"{number}-1", (), rivals, f"pin:{number}"),
    )
