"""Which packages one exact driver is made of, and where it cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.driver import packages as driver_packages
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import repository as apt_repository
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.packages import (
    PackageError,
    Requirement,
    package_set,
    select,
)

FIXTURES = Path(__file__).parents[2] / "fixtures"
REAL = FIXTURES / "real-packages"
H = {"nvswitches": 0, "fabric": {"switch_managers": 0, "spans_hosts": False}, "fabric_manager": None}
B200 = {**H, "fabric": {"switch_managers": 4, "spans_hosts": False}}
GB200 = {**H, "fabric": {"switch_managers": 0, "spans_hosts": True}}


def required(version: str, **params: object) -> set[str]:
    choice: dict = {"source": "nvidia", "flavor": "open", "distribution": "Ubuntu", "fabric_manager": False, **params}
    return {requirement.names[0] for requirement in package_set(version, **choice) if requirement.required}


@pytest.mark.parametrize(
    ("version", "params", "names"),
    [
        ("550.127.05", {}, {"nvidia-dkms-550-open", "nvidia-kernel-common-550", "libnvidia-compute-550",
                            "nvidia-utils-550", "nvidia-compute-utils-550"}),
        ("550.127.05", {"flavor": "proprietary"}, {"nvidia-dkms-550", "nvidia-kernel-common-550",
                                                   "libnvidia-compute-550", "nvidia-utils-550",
                                                   "nvidia-compute-utils-550"}),
        ("590.48.01", {}, {"nvidia-dkms-open", "nvidia-kernel-common", "libnvidia-compute",
                           "nvidia-driver-pinning-590.48.01"}),
        ("580.95.05", {"distribution": "Debian"}, {"nvidia-driver-cuda", "nvidia-kernel-open-dkms", "libcuda1",
                                                   "libnvidia-ml1", "nvidia-persistenced"}),
        ("595.58.03", {"distribution": "Debian"}, {"nvidia-driver-cuda", "nvidia-kernel-open-dkms", "libcuda1",
                                                   "libnvidia-ml1", "nvidia-persistenced",
                                                   "nvidia-driver-pinning-595.58.03"}),
        ("550.127.05", {"source": "ubuntu"}, {"nvidia-dkms-550-server-open", "nvidia-kernel-common-550-server",
                                              "libnvidia-compute-550-server", "nvidia-utils-550-server",
                                              "nvidia-compute-utils-550-server"}),
        ("550.127.05", {"source": "ubuntu", "prebuilt_for": ["6.8.0-49-generic"]},
         {"linux-modules-nvidia-550-server-open-6.8.0-49-generic", "nvidia-kernel-common-550-server",
          "libnvidia-compute-550-server", "nvidia-utils-550-server", "nvidia-compute-utils-550-server"}),
        ("535.309.01", {"source": "debian", "distribution": "Debian", "flavor": "proprietary"},
         {"nvidia-kernel-dkms", "nvidia-smi", "libcuda1", "libnvidia-ml1", "nvidia-persistenced"}),
        ("535.261.03", {"source": "debian", "distribution": "Debian"}, {"nvidia-open-kernel-dkms", "nvidia-smi",
                                                                        "libcuda1", "libnvidia-ml1",
                                                                        "nvidia-persistenced"}),
        ("550.127.05", {"source": "verify", "distribution": "Fedora"}, set()),
    ],
)  # fmt: skip
def test_required_packages(version: str, params: dict, names: set[str]) -> None:
    assert required(version, **params) == names


@pytest.mark.parametrize(("flavor", "support", "other"), [
    ("open", "nvidia-open-kernel-support", "nvidia-kernel-support"),
    ("proprietary", "nvidia-kernel-support", "nvidia-open-kernel-support"),
])  # fmt: skip
def test_on_debian_each_flavour_brings_its_own_alternative(flavor: str, support: str, other: str) -> None:
    """With the proprietary support package beside it, modprobe never takes the open modules."""
    names = {name for one in package_set("535.261.03", source="debian", flavor=flavor, distribution="Debian", fabric_manager=False)
             for name in one.names}  # fmt: skip
    assert support in names
    assert other not in names


def test_no_package_of_a_desktop_is_required() -> None:
    every = {name for version in ("550.127.05", "590.48.01") for distribution in ("Ubuntu", "Debian")
             for requirement in package_set(version, source="nvidia", flavor="open", distribution=distribution, fabric_manager=True)
             for name in requirement.names}  # fmt: skip
    assert not [name for name in every if "xserver" in name or "-gl" in name or "settings" in name]


@pytest.mark.parametrize(
    ("version", "names"),
    [("550.127.05", ("nvidia-fabricmanager-550", "nvidia-fabricmanager")),
     ("580.126.09", ("nvidia-fabricmanager-580", "nvidia-fabricmanager"))],
)  # fmt: skip
def test_fabric_manager_is_taken_under_either_name(version: str, names: tuple[str, ...]) -> None:
    requirements = package_set(version, source="nvidia", flavor="open", distribution="Ubuntu", fabric_manager=True)
    assert Requirement(names, version) in requirements


@pytest.mark.parametrize(
    ("version", "params", "fragment"),
    [
        ("550", {}, "expected a full version such as 550.127.05"),
        ("550.127.05-0ubuntu1", {}, "expected a full version"),
        ("510.47.03", {}, "has no open kernel modules"),
        ("550.127.05", {"distribution": "Rocky"}, "installs on Debian and Ubuntu, this host runs Rocky"),
        ("550.127.05", {"source": "ubuntu", "distribution": "Debian"}, "nvidia_driver_source is ubuntu"),
        ("550.127.05", {"prebuilt_for": ["6.8.0"]}, "only from Ubuntu's archive"),
    ],
)
def test_impossible_parameters_are_refused(version: str, params: dict, fragment: str) -> None:
    with pytest.raises(PackageError, match=fragment):
        required(version, **params)


OFFER = {
    "libnvidia-compute-550": ["550.127.05-0ubuntu2", "550.127.05-0ubuntu1", "550.90.07-1"],
    "nvidia-utils-550": ["550.127.05-0ubuntu1"],
    "nvidia-modprobe": ["580.95.05-0ubuntu1", "550.127.05-0ubuntu1"],
    "libcuda1": ["12.4.1-1"],
}


def test_the_first_revision_of_the_exact_version_is_taken() -> None:
    requirements = [Requirement(("libnvidia-compute-550",), "550.127.05"), Requirement(("nvidia-modprobe",), None),
             Requirement(("no-such", "nvidia-utils-550"), "550.127.05"), Requirement(("absent",), "550.127.05", required=False)]  # fmt: skip
    assert select(requirements, OFFER) == {
        "libnvidia-compute-550": "550.127.05-0ubuntu2",
        "nvidia-modprobe": "580.95.05-0ubuntu1",
        "nvidia-utils-550": "550.127.05-0ubuntu1",
    }


def test_what_is_not_on_offer_is_named_with_what_is() -> None:
    with pytest.raises(
        PackageError, match=r"driver 550\.120\.01 .*missing: nvidia-utils-550\).* 550\.90\.07, 550\.127\.05$"
    ):
        select([Requirement(("nvidia-utils-550",), "550.120.01")], OFFER)


def test_one_package_alone_that_is_missing_is_named() -> None:
    with pytest.raises(PackageError) as refused:
        select(
            [Requirement(("libnvidia-compute-550",), "550.90.07"), Requirement(("nvidia-utils-550",), "550.90.07"),
             Requirement(("nvidia-dkms-550",), "550.90.07")],
            OFFER,
        )  # fmt: skip
    assert str(refused.value) == (
        "the repository has driver 550.90.07, but not all of it; missing: nvidia-utils-550 (only in 550.127.05), "
        "nvidia-dkms-550 (not at all)"
    )


@pytest.mark.parametrize(
    ("setting", "state", "needed"),
    [
        ("present", H, True),
        ("absent", {**H, "nvswitches": 4}, False),
        ("auto", H, False),
        ("auto", {**H, "nvswitches": 4}, True),
        ("auto", {**H, "fabric_manager": {"package_version": "550.90.07"}}, True),
        ("auto", B200, True),
        ("absent", B200, False),
        ("auto", GB200, False),  # it runs on the rack's switches
    ],
)
def test_fabric_manager_where_it_is_needed(setting: str, state: dict, needed: bool) -> None:
    assert driver_packages.needs_fabric_manager(setting, state) is needed


@pytest.mark.parametrize(
    ("setting", "state", "needed"),
    [
        ("auto", H, False),
        ("auto", B200, False),
        ("auto", GB200, True),
        ("absent", GB200, False),
        ("present", GB200, True),
    ],
)
def test_imex_where_nvlink_reaches_other_hosts(setting: str, state: dict, needed: bool) -> None:
    assert driver_packages.needs_imex(setting, state) is needed


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({}, set()),
        ({"fabric_manager": True}, {"nvidia-fabricmanager-580"}),
        ({"fabric_manager": True, "nvlink5": True}, {"nvidia-fabricmanager-580", "nvlsm", "infiniband-diags"}),
        ({"nvlink5": True}, set()),
        ({"imex": True}, {"nvidia-imex-580"}),
    ],
)
def test_fabric_software_of_each_kind_of_host(params: dict, names: set[str]) -> None:
    assert required("580.126.09", **params) - required("580.126.09") == names


def test_what_nvlink5_needs_has_versions_of_its_own_and_libnvsdm_the_drivers() -> None:
    offer = {
        "nvidia-fabricmanager": ["580.126.09-1", "595.71.05-1"],
        "libnvidia-nscq": ["580.126.09-1"],
        "libnvsdm": ["580.126.09-1", "595.71.05-1"],
        "nvlsm": ["2025.10.11-1", "2025.03.1-1"],
        "infiniband-diags": ["50.0-2ubuntu0.2"],
    }
    wanted = package_set(
        "580.126.09", source="nvidia", flavor="open", distribution="Ubuntu", fabric_manager=True, nvlink5=True
    )
    bare = package_set("580.126.09", source="nvidia", flavor="open", distribution="Ubuntu", fabric_manager=False)
    assert select([one for one in wanted if one not in bare], offer) == {
        "nvidia-fabricmanager": "580.126.09-1",
        "libnvidia-nscq": "580.126.09-1",
        "libnvsdm": "580.126.09-1",
        "nvlsm": "2025.10.11-1",
        "infiniband-diags": "50.0-2ubuntu0.2",
    }


@pytest.mark.parametrize(
    ("name", "version", "part"),
    [
        ("libnvidia-compute-550", "550.90.07-0ubuntu1", True),
        ("nvidia-driver-pinning-580", "580-1", True),
        ("nvidia-firmware-550-550.90.07", "550.90.07-0ubuntu1", True),
        ("nvidia-alternative", "535.261.03-1", True),
        ("nvidia-legacy-check", "535.261.03-1", True),
        ("nvidia-settings", "560.35.05-0ubuntu1", False),
        ("nvidia-persistenced", "535.171.04-1", False),
        ("libnvsdm", "580.126.09-1", True),
        ("nvlink5-580", "580.126.09-1", False),
        ("nvlsm", "2025.10.11-1", False),
        ("infiniband-diags", "50.0-2ubuntu0.2", False),
        ("nvlsm", "2025.03.1-1", False),
    ],
)
def test_what_has_to_go_with_its_version(name: str, version: str, part: bool) -> None:
    assert driver_packages.takes_part(name, version) is part


ROWS = [{"cuda": "12", "driver": "525.60.13", "source": "s"}, {"cuda": "13", "driver": "580.65.06", "source": "s"}]


@pytest.mark.parametrize(
    ("driver", "cuda", "refused"),
    [
        ("550.127.05", "13.0", True),
        ("580.65.06", "13.0", False),
        ("580.65.05", "13.1", True),
        ("550.127.05", "12.8", False),
        ("520.61.05", "12.1", True),
        ("550.127.05", "14.0", False),
        ("550.127.05", None, False),
        (None, "13.0", False),
    ],
)
def test_driver_and_cuda(driver: str | None, cuda: str | None, refused: bool) -> None:
    refusal = driver_packages.combination_refusal(driver, cuda, ROWS)
    assert bool(refusal) is refused
    if refusal:
        assert str(driver) in refusal
        assert f"CUDA {cuda}" in refusal


def test_the_table_of_driver_minima_has_every_cuda_that_torch_is_built_for() -> None:
    assert driver_packages.combination_refusal("550.127.05", "13.0")
    assert driver_packages.combination_refusal("550.127.05", "12.8") is None


def test_packages_index() -> None:
    offered = apt_repository.parse_packages((FIXTURES / "apt/Packages-ubuntu2204").read_text())
    assert offered == {
        "libnvidia-compute-550": ["550.127.05-0ubuntu1", "550.90.07-1"],
        "nvidia-driver-pinning-595.71.05": ["595.71.05-1ubuntu1"],
    }


@pytest.mark.parametrize(
    ("release", "offered"),
    [
        # The installed version is pinned at 1001 and comes after what the archive prefers all the same.
        ("debian12", {"nvidia-smi": ["535.309.01-0+deb12u1", "535.261.03-1", "535.216.03-2~bpo12+1"],
                      "nvidia-persistenced": ["535.171.04-1~deb12u1"]}),
        # Backports (100) come after the release (500), though their revision is higher; 580 is installed and nowhere on offer.
        ("debian13", {"nvidia-smi": ["550.163.01-2", "550.163.01-4~bpo13+1"], "nvidia-persistenced": ["550.163.01-1"]}),
    ],
)  # fmt: skip
def test_what_apt_offers_in_its_own_order(release: str, offered: dict[str, list[str]]) -> None:
    assert apt_repository.parse_policy((REAL / release / "apt-cache-policy.txt").read_text()) == offered


def test_of_two_revisions_that_of_the_archive_s_own_release_is_taken() -> None:
    offered = apt_repository.parse_policy((REAL / "debian13/apt-cache-policy.txt").read_text())
    assert select([Requirement(("nvidia-smi",), "550.163.01")], offered) == {"nvidia-smi": "550.163.01-2"}


@pytest.mark.parametrize("name", ["Packages", "Packages.gz", "Packages.xz"])
def test_a_repository_in_any_packing(tmp_path: Path, name: str) -> None:
    import gzip
    import lzma

    body = (FIXTURES / "apt/Packages-ubuntu2204").read_bytes()
    pack = {"gz": gzip.compress, "xz": lzma.compress}.get(name.rpartition(".")[2], bytes)
    (tmp_path / name).write_bytes(pack(body))
    assert "libnvidia-compute-550" in apt_repository.offered(apt_repository.Repository(f"file://{tmp_path}/"))


@pytest.mark.parametrize(
    ("url", "fragment"),
    [
        ("file:///nowhere/at/all", "package index cannot be read"),
        ("http://127.0.0.1:9/repo", "refused"),
        ("ftp://example.test", "unknown scheme"),
    ],
)
def test_a_repository_that_cannot_be_read(url: str, fragment: str) -> None:
    with pytest.raises(apt_repository.UnreadableIndex, match=fragment):
        apt_repository.offered(apt_repository.Repository(url), deadline=2)


def test_a_page_that_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "Packages").write_text("<html>not found</html>")
    with pytest.raises(apt_repository.UnreadableIndex, match="holds no package"):
        apt_repository.offered(apt_repository.Repository(f"file://{tmp_path}"))


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ('ID=ubuntu\nNAME="Ubuntu"\n', "Ubuntu"),
        ("ID=debian\n", "Debian"),
        ('ID="rocky"\nNAME="Rocky Linux"\n', "Rocky Linux"),
    ],
)
def test_distribution(tmp_path: Path, release: str, name: str) -> None:
    (tmp_path / "os-release").write_text(release)
    assert apt_repository.this_distribution(tmp_path / "os-release") == name
