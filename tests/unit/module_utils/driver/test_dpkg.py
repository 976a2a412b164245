"""The driver's packages, from dpkg-query's output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import dpkg, package_state

FIXTURES = Path(__file__).parents[2] / "fixtures"


def text(name: str) -> str:
    return (FIXTURES / name).read_text()


def test_packages() -> None:
    packages = dpkg.parse(text("dpkg/ubuntu2204-550"))
    assert set(packages) == {
        "libnvidia-compute-550",
        "nvidia-utils-550",
        "nvidia-fabricmanager-550",
        "nvidia-settings",
        "nvidia-dkms-550-open",
        "libnvidia-cfg1-550",
    }
    assert packages["libnvidia-compute-550"] == {"version": "550.127.05-0ubuntu1", "hold": True, "broken": False}
    assert packages["nvidia-utils-550"]["hold"] is False
    assert packages["nvidia-dkms-550-open"]["broken"] is True
    assert dpkg.driver_versions(packages) == ["550.127.05"]


def test_mixed_packages_are_all_named_oldest_first() -> None:
    versions = {
        "libnvidia-compute": "580.95.05-1",
        "nvidia-dkms-550": "550.90.07-1",
        "libcuda1": "550.127.05-1",
        "nvidia-persistenced": "535.171.04-1",
        "nvidia-fabricmanager": "560.35.05-1",
    }
    packages: dict[str, dpkg.Package] = {
        name: {"version": version, "hold": True, "broken": False} for name, version in versions.items()
    }
    assert dpkg.driver_versions(packages) == ["550.90.07", "550.127.05", "580.95.05"]


def test_an_interrupted_dpkg_is_noticed(tmp_path: Path) -> None:
    updates = tmp_path / "var/lib/dpkg/updates"
    updates.mkdir(parents=True)
    assert dpkg.interrupted(tmp_path) is False
    (updates / "0001").write_text("")
    assert dpkg.interrupted(tmp_path) is True


def test_dpkg_query_is_asked_for_the_driver_s_packages_only() -> None:
    calls: list[Sequence[str]] = []

    def run(argv: Sequence[str], _deadline: float) -> CommandResult:
        calls.append(argv)
        return CommandResult(1, text("dpkg/ubuntu2204-550"), "dpkg-query: no packages found matching nvlsm")

    assert dpkg.driver_version(dpkg.installed(run)) == "550.127.05"
    assert [list(argv) for argv in calls] == [[*dpkg.QUERY, *dpkg.PATTERNS]]


@pytest.mark.parametrize(("beside", "ours"), [("nvlsm\t2025.10.11-1", True), ("rdma-core\t50.0-2", False)])
def test_a_tool_of_every_infiniband_host_belongs_to_the_driver_only_beside_nvlsm(beside: str, ours: bool) -> None:
    lines = f"install\tinstalled\tinfiniband-diags\t50.0-2ubuntu0.2\ninstall\tinstalled\t{beside}\n"
    packages = dpkg.parse(lines)
    assert ("infiniband-diags" in packages) is ours
    assert dpkg.driver_versions(packages) == []


def rows(release: str) -> dict[str, str]:
    """Packages and versions that the role left on a real host, as ``dpkg -l`` listed them."""
    lines = (FIXTURES / f"real-packages/{release}/dpkg-l-after-role.txt").read_text().splitlines()
    split = [line.split() for line in lines if line[:2] in ("hi", "ii")]
    return {name.partition(":")[0]: version for _state, name, version, *_rest in split}


@pytest.mark.parametrize("release", ["debian12", "debian13"])
def test_every_package_of_the_driver_s_version_is_held(release: str) -> None:
    """nvidia-legacy-check too: it has the driver's version, and what has it follows the driver."""
    installed = rows(release)
    ours = {name for name in installed if package_state.is_driver_part(name)}
    assert {name for name, version in installed.items() if version == installed["nvidia-smi"]} <= ours
    assert not {"nvidia-support", "nvidia-installer-cleanup", "glx-alternative-nvidia"} & ours
    text = "".join(f"install\tinstalled\t{name}\t{installed[name]}\n" for name in ours)
    assert set(dpkg.parse(text)) == ours
