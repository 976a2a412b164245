"""Changes between Debian's real versions and flavours: what is installed and what goes, from captures of a real archive."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.driver import dpkg, install, package_state, transaction
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.packages import PackageError
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.transaction import Declared

REAL = Path(__file__).parents[2] / "fixtures/real-packages"
RELEASE, SECURITY, BACKPORTS = "535.261.03", "535.309.01", "535.216.03"
SUPPORT = {"open": "nvidia-open-kernel-support", "proprietary": "nvidia-kernel-support"}
MODULES = {"open": "nvidia-open-kernel-dkms", "proprietary": "nvidia-kernel-dkms"}


def offered() -> dict[str, list[str]]:
    """The archive's versions in apt's order, from ``apt-cache madison``; backports (priority 100) come last in it as well.

    The packages that the capture does not ask for have the versions that firmware-nvidia-gsp has, as they have one source.
    """
    found: dict[str, list[str]] = {}
    for line in (REAL / "debian12/apt-cache-madison.txt").read_text().splitlines():
        name, version = (field.strip() for field in line.split("|")[:2])
        found.setdefault(name, []).append(version)
    same = ("nvidia-alternative", "nvidia-legacy-check", "libnvidia-cfg1", "libnvidia-ptxjitcompiler1", "nvidia-kernel-support",
            "libnvidia-pkcs11-openssl3")  # fmt: skip
    return {**dict.fromkeys(same, found["firmware-nvidia-gsp"]), **found,
            SUPPORT["open"]: found[MODULES["open"]]}  # fmt: skip


def on(version: str, flavor: str) -> dict[str, Any]:
    """A host that runs one of them: what the capture lists, at that version, with that flavour's packages."""
    lines = (REAL / "debian12/dpkg-l-after-role.txt").read_text().splitlines()
    rows = [line.split() for line in lines if line[:2] in ("hi", "ii")]
    rows = [row for row in rows if package_state.is_driver_part(row[1])]
    exact = next(one for one in offered()["firmware-nvidia-gsp"] if one.startswith(version))
    text = "".join(f"hold\tinstalled\t{name}\t{exact if RELEASE in old else old}\n" for _s, name, old, *_r in rows)
    packages = dpkg.parse(text)
    for name in (*SUPPORT.values(), *MODULES.values()):
        packages.pop(name, None)
    for name in (SUPPORT[flavor], MODULES[flavor]):
        packages[name] = {"version": exact, "hold": True, "broken": False}
    return packages


def decide(packages: dict[str, Any], version: str, flavor: Any) -> install.Plan:
    state: Any = {
        "packages": packages,
        "nvswitches": 0,
        "fabric": {"switch_managers": 0, "spans_hosts": False},
        "fabric_manager": None,
    }
    return transaction.decide(Declared(version, "debian", flavor), state, offered(), "Debian", ["6.1.0-56-amd64"])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((RELEASE, "open"), (SECURITY, "proprietary")),
        ((SECURITY, "proprietary"), (BACKPORTS, "proprietary")),
        ((BACKPORTS, "proprietary"), (SECURITY, "proprietary")),
        ((RELEASE, "proprietary"), (RELEASE, "open")),
        ((RELEASE, "open"), (RELEASE, "proprietary")),
    ],
)  # fmt: skip
def test_one_flavour_and_one_version_are_left(before: tuple[str, str], after: tuple[str, str]) -> None:
    packages = on(*before)
    work = decide(packages, *after)
    left = {**{name: package["version"] for name, package in packages.items()}, **work.install}
    left = {name: version for name, version in left.items() if name not in work.remove}
    wanted, other = after[1], "open" if after[1] == "proprietary" else "proprietary"
    assert {SUPPORT[wanted], MODULES[wanted]} <= set(left)
    assert not {SUPPORT[other], MODULES[other]} & set(left)
    assert dpkg.driver_versions(
        {name: {"version": one, "hold": True, "broken": False} for name, one in left.items()}
    ) == [after[0]]
    assert not [
        name
        for name, one in left.items()
        if before[0] in one and before[0] != after[0] and not dpkg.has_own_version(name)
    ]
    assert set(install.transaction(work)) >= {
        f"{name}-" for name in work.remove
    }  # fetched and installed in one transaction


def test_all_strict_relations_of_the_real_packages_hold_in_the_plan() -> None:
    """``Depends: firmware-nvidia-gsp (= 535.309.01) | …`` and the like: what is named goes to that version in the same run."""
    work = decide(on(RELEASE, "open"), SECURITY, "proprietary")
    there = {
        **{name: one["version"] for name, one in on(RELEASE, "open").items() if name not in work.remove},
        **work.install,
    }
    for paragraph in re.split(r"\n(?=Package: )", (REAL / "debian12/package-relations.txt").read_text()):
        name = re.search(r"^Package: (\S+)", paragraph, re.MULTILINE)
        assert name
        for one, exact in re.findall(
            r"(\S+) \(= ([^)]+)\)", "".join(re.findall(r"^Depends: .*$", paragraph, re.MULTILINE))
        ):
            if name[1] in work.install and one in there:
                assert there[one].startswith(exact.partition("-")[0]), (name[1], one)


def test_the_open_flavour_that_a_version_does_not_have_is_reported() -> None:
    with pytest.raises(
        PackageError, match=r"535\.309\.01 is on offer with proprietary kernel modules alone: set nvidia_driver_flavor"
    ):
        decide({}, SECURITY, "open")
