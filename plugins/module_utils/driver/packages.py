"""Which packages make up one exact driver for compute, as NVIDIA, Ubuntu and Debian name them.

Sources: docs.nvidia.com "Driver Installation Guide" r590 (compute-only), and NVIDIA's, Ubuntu's and Debian's indexes.

* NVIDIA's repository for Ubuntu has the branch in the names before 590 (``libnvidia-compute-550``) and not from 590 on
  (``libnvidia-compute``), where ``nvidia-driver-pinning-<version>`` chooses the version.
* NVIDIA's repository for Debian never has the branch in the names; before 560 ``nvidia-smi`` was a package of its own,
  afterwards ``nvidia-driver-cuda`` holds it.
* Fabric manager lost its suffix with 580. Ubuntu's archive has the ``-server`` branches, Debian's has its own names.

A Debian revision (``-0ubuntu1``, ``-1``) does not follow from the driver version: ``select`` takes it from the index.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from ..core import data_tables
from .cuda_release import CudaRelease
from .dpkg import has_own_version
from .state import DriverState
from .versions import is_driver_version, upstream, version_key

Source = Literal["nvidia", "ubuntu", "debian", "mirror", "verify"]
Flavor = Literal["open", "proprietary"]
Offer = Mapping[str, Sequence[str]]

# What apt's preferences keep at the driver's version, named or not.
FAMILY = (
    "nvidia-*", "libnvidia-*", "libcuda1", "libcudadebugger1", "cuda-drivers*", "firmware-nvidia-*",
    "xserver-xorg-video-nvidia*", "libgl1-nvidia-*", "libegl-nvidia*", "libgles-nvidia*", "libglx-nvidia*",
    "libnvcuvid1", "libnvoptix1", "libnvsdm*", "nvlink5*",
)  # fmt: skip
DIAGNOSTICS = ("infiniband-diags",)
"""What comes from the distribution's archive, or from DOCA, whatever the driver's source is."""
PINNING = "nvidia-driver-pinning-"
SUPPORTED = ("Debian", "Ubuntu")
UNSUFFIXED_FROM = 590
FIRST_OPEN_BRANCH = 515


class PackageError(ValueError):
    """Parameters that no repository can satisfy; the message says what was asked for and what there is."""


@dataclasses.dataclass(frozen=True)
class Requirement:
    """One package: the first of ``names`` on offer in driver version ``version`` is taken.

    ``version`` None takes the newest on offer (tools with versions of their own); a package that is not ``required`` is
    taken only where the repository has it.
    """

    names: tuple[str, ...]
    version: str | None
    required: bool = True


def branch(version: str) -> int:
    """The driver branch: ``550.127.05`` → 550.

    Raises:
        PackageError: ``version`` is not a full driver version.
    """
    if not is_driver_version(version):
        raise PackageError(f"nvidia_driver_version is {version!r}, expected a full version such as 550.127.05")
    return int(version.split(".")[0])


def refused_system(distribution: str) -> str | None:
    """Why no driver can be installed on this distribution; None when it can."""
    if distribution in SUPPORTED:
        return None
    return (
        f"nvidia_driver installs on {' and '.join(SUPPORTED)}, this host runs {distribution}. Install the driver "
        "by the platform's own means and set nvidia_driver_source: verify, which checks what is there and "
        "changes nothing."
    )


def package_set(
    version: str,
    *,
    source: Source,
    flavor: Flavor,
    distribution: str,
    fabric_manager: bool,
    nvlink5: bool = False,
    imex: bool = False,
    prebuilt_for: Sequence[str] = (),
) -> tuple[Requirement, ...]:
    """The compute-only package set for one exact driver version.

    Args:
        version: full driver version, ``550.127.05``.
        source: where packages come from; ``verify`` needs none.
        flavor: kernel modules ``open`` or ``proprietary``.
        distribution: ``Debian`` or ``Ubuntu``, as ``ansible_facts.distribution`` has it.
        fabric_manager: whether the host has NVSwitches and so needs fabric manager in the same version.
        nvlink5: whether its NVSwitches are reached through ConnectX functions, as on HGX B200 and B300.
        imex: whether its NVLink reaches other hosts, which takes IMEX in the same version.
        prebuilt_for: kernel releases (``uname -r``) to take Ubuntu's signed prebuilt modules for, instead of DKMS.

    Raises:
        PackageError: the parameters contradict each other, or the distribution is not supported.
    """
    number = branch(version)
    if source == "verify":
        return ()
    refusal = refused_system(distribution)
    if refusal:
        raise PackageError(refusal)
    if flavor == "open" and number < FIRST_OPEN_BRANCH:
        raise PackageError(
            f"driver {version} has no open kernel modules (they begin with {FIRST_OPEN_BRANCH}): "
            "set nvidia_driver_flavor: proprietary"
        )
    if source in ("ubuntu", "debian") and source != distribution.lower():
        raise PackageError(f"nvidia_driver_source is {source}, but this host runs {distribution}")
    if prebuilt_for and source != "ubuntu":
        raise PackageError("prebuilt kernel modules come only from Ubuntu's archive: set nvidia_driver_source: ubuntu")
    if source == "ubuntu":
        names = _ubuntu_archive(version, number, flavor, prebuilt_for)
    elif source == "debian":
        names = _debian_archive(version, flavor)
    elif distribution == "Debian":
        names = _nvidia_for_debian(version, number, flavor)
    else:
        names = _nvidia_for_ubuntu(version, number, flavor)
    return (
        *names,
        *(_fabric_manager(version, number) if fabric_manager else ()),
        *(_nvlink5(version, number) if fabric_manager and nvlink5 else ()),
        *((Requirement((f"nvidia-imex-{number}", "nvidia-imex"), version),) if imex else ()),
    )


def needs_fabric_manager(setting: str, state: DriverState) -> bool:
    """Whether this host is to have fabric manager: ``present``, ``absent``, or ``auto``, as its hardware asks for.

    A fabric manager that is installed already counts too: left behind at another version it would stop CUDA.
    """
    if setting == "auto":
        return bool(state["nvswitches"] or state["fabric"]["switch_managers"] or state["fabric_manager"])
    return setting == "present"


def needs_imex(setting: str, state: DriverState) -> bool:
    """Whether this host is to have IMEX: where its NVLink reaches other hosts, unless fabric software is declared absent."""
    return setting != "absent" and state["fabric"]["spans_hosts"]


def takes_part(name: str, version: str) -> bool:
    """Whether an installed package belongs to one driver version and has to go when another comes."""
    return name.startswith(PINNING) or (is_driver_version(upstream(version)) and not has_own_version(name))


def flavor_of_prebuilt(name: str) -> Flavor | None:
    """Of which flavour a package of Ubuntu's prebuilt modules is; None for other packages, and for those that serve both."""
    match = re.match(r"linux-(?:modules|objects)-nvidia-\d+(?:-server)?(-open)?-", name)
    return None if match is None else "open" if match.group(1) else "proprietary"


def select(requirements: Sequence[Requirement], offered: Offer) -> dict[str, str]:
    """The exact apt version of every package, by name, from what a repository offers: the first that fits.

    Raises:
        PackageError: a required package is not on offer in the required version; the message names what is on offer.
    """
    chosen: dict[str, str] = {}
    missing: list[Requirement] = []
    for requirement in requirements:
        match = next(
            ((name, exact) for name in requirement.names if (exact := _match(requirement, offered.get(name, ())))), None
        )
        if match:
            chosen[match[0]] = match[1]
        elif requirement.required:
            missing.append(requirement)
    if missing:
        raise PackageError(_not_on_offer(requirements, missing, offered))
    return chosen


def _not_on_offer(requirements: Sequence[Requirement], missing: Sequence[Requirement], offered: Offer) -> str:
    """What is missing: one part of a driver that is there, or the driver as a whole."""
    version = next(requirement.version for requirement in requirements if requirement.version)
    versions = on_offer(offered)
    if version not in versions:
        listed = ", ".join(" or ".join(requirement.names) for requirement in missing)
        offer = ", ".join(versions) or "no driver at all"
        return f"driver {version} is not in the repository (missing: {listed}); it offers {offer}"
    parts = []
    for requirement in missing:
        have = dict.fromkeys(upstream(one) for name in requirement.names for one in offered.get(name, ()))
        there = f"only in {', '.join(have)}" if have else "not at all"
        parts.append(f"{' or '.join(requirement.names)} ({there})")
    return f"the repository has driver {version}, but not all of it; missing: {', '.join(parts)}"


def on_offer(offered: Offer) -> list[str]:
    """Driver versions that a repository has user-space libraries for, oldest first."""
    versions = {
        upstream(version)
        for name, versions in offered.items()
        for version in versions
        if name == "libcuda1" or name.startswith("libnvidia-compute")
    }
    return sorted((version for version in versions if is_driver_version(version)), key=version_key)


def combination_refusal(
    driver: str | None, torch_cuda: str | None, minimums: Sequence[CudaRelease] | None = None
) -> str | None:
    """Why torch built for CUDA ``torch_cuda`` (``13.0``) cannot run on ``driver``; None when it can, or when unknown.

    ``minimums`` are the rows of data/cuda_minimum_driver.yml, read from there when left out.
    """
    if not driver or not torch_cuda:
        return None
    rows = data_tables.read("cuda_minimum_driver") if minimums is None else minimums
    row = next((row for row in rows if str(row["cuda"]) == torch_cuda.split(".")[0]), None)
    if row is None or version_key(driver) >= version_key(str(row["driver"])):
        return None
    return (
        f"torch is built for CUDA {torch_cuda}, which needs driver {row['driver']} or newer, and driver "
        f"{driver} is asked for ({row['source']}). Set nvidia_driver_version to {row['driver']} or newer, or "
        "serving_runtime_lock to an environment built for an older CUDA"
    )


def _match(requirement: Requirement, versions: Sequence[str]) -> str | None:
    """The first version that fits: an offer begins with what is to be preferred."""
    return next((one for one in versions if requirement.version is None or upstream(one) == requirement.version), None)


def _nvidia_for_ubuntu(version: str, number: int, flavor: Flavor) -> tuple[Requirement, ...]:
    suffix = "" if number >= UNSUFFIXED_FROM else f"-{number}"
    opened = "-open" if flavor == "open" else ""
    required = [f"nvidia-dkms{suffix}{opened}", f"nvidia-kernel-common{suffix}", f"libnvidia-compute{suffix}"]
    optional = [
        f"nvidia-kernel-source{suffix}{opened}",
        f"libnvidia-cfg1{suffix}",
        f"libnvidia-decode{suffix}",
        f"libnvidia-gpucomp{suffix}",
        "nvidia-modprobe",
        "nvidia-persistenced",
        f"nvidia-firmware{suffix}-{version}" if suffix else "nvidia-firmware",
    ]
    tools = [f"nvidia-utils{suffix}", f"nvidia-compute-utils{suffix}"]
    if suffix:
        required += tools
    else:
        required.append(f"{PINNING}{version}")
        optional += tools  # NVIDIA put them into libnvidia-compute; mirrors may not have
    return _requirements(version, required, optional)


def _nvidia_for_debian(version: str, number: int, flavor: Flavor) -> tuple[Requirement, ...]:
    kernel = "nvidia-kernel-open-dkms" if flavor == "open" else "nvidia-kernel-dkms"
    pinning = [f"{PINNING}{version}"] if number >= UNSUFFIXED_FROM else []
    return (
        Requirement(("nvidia-driver-cuda", "nvidia-smi"), version),
        *_requirements(
            version,
            [kernel, "libcuda1", "libnvidia-ml1", "nvidia-persistenced", *pinning],
            [
                "nvidia-kernel-support",
                "nvidia-alternative",
                "nvidia-modprobe",
                "firmware-nvidia-gsp",
                "libnvidia-cfg1",
                "libnvidia-ptxjitcompiler1",
                "libcudadebugger1",
            ],
        ),
    )


def _ubuntu_archive(version: str, number: int, flavor: Flavor, prebuilt_for: Sequence[str]) -> tuple[Requirement, ...]:
    server, opened = f"-{number}-server", "-open" if flavor == "open" else ""
    required = [
        f"nvidia-kernel-common{server}",
        f"libnvidia-compute{server}",
        f"nvidia-utils{server}",
        f"nvidia-compute-utils{server}",
    ]
    prebuilt = [Requirement((f"linux-modules-nvidia{server}{opened}-{kernel}",), None) for kernel in prebuilt_for]
    return (
        *(prebuilt or [Requirement((f"nvidia-dkms{server}{opened}",), version)]),
        *_requirements(
            version,
            required,
            [
                f"libnvidia-cfg1{server}",
                f"libnvidia-decode{server}",
                f"nvidia-kernel-source{server}{opened}",
                f"nvidia-firmware{server}-{version}",
            ],
        ),
    )


def _debian_archive(version: str, flavor: Flavor) -> tuple[Requirement, ...]:
    # Each flavour has a support package of its own, and the proprietary one's wins wherever it is installed (alternatives 535
    # over 534): with both, `modprobe nvidia` never takes the open modules.
    stem = "nvidia-open-kernel" if flavor == "open" else "nvidia-kernel"
    return (
        *_requirements(
            version,
            [f"{stem}-dkms", "nvidia-smi", "libcuda1", "libnvidia-ml1"],
            [
                f"{stem}-support",
                "nvidia-alternative",
                "firmware-nvidia-gsp",
                "libnvidia-cfg1",
                "libnvidia-ptxjitcompiler1",
            ],
        ),
        Requirement(("nvidia-persistenced",), None),
        Requirement(("nvidia-modprobe",), None, required=False),
    )


def _fabric_manager(version: str, number: int) -> tuple[Requirement, ...]:
    return (
        Requirement((f"nvidia-fabricmanager-{number}", "nvidia-fabricmanager"), version),
        Requirement((f"libnvidia-nscq-{number}", "libnvidia-nscq"), version, required=False),
    )


def _nvlink5(version: str, number: int) -> tuple[Requirement, ...]:
    """What fabric manager needs beside it on HGX B200 and B300 (NVIDIA/gpu-driver-container, ``nvlink5_pkgs_install``).

    nvlsm and infiniband-diags have versions of their own; libnvsdm is not built for arm64.
    """
    return (
        Requirement(("nvlsm",), None),
        Requirement(DIAGNOSTICS, None),
        Requirement((f"libnvsdm-{number}", "libnvsdm"), version, required=False),
    )


def _requirements(version: str, required: Sequence[str], optional: Sequence[str]) -> tuple[Requirement, ...]:
    return (
        *(Requirement((name,), version) for name in required),
        *(Requirement((name,), version, required=False) for name in optional),
    )
