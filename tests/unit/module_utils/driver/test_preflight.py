"""A host is looked at before its driver is changed: with the real apt-get on a root of its own, and nothing of it changed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import apt_root, boot_kernels, preflight
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import install as driver_install
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.package_problems import Problem, ProblemKind
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.repository import Repository
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.transaction import Declared
from tests.unit.documented import documented
from tests.unit.module_utils.driver.aptlab import Host, Key, digest, held, paragraph, publish

CASES = Path(__file__).parents[2] / "fixtures" / "cases"
DESKTOP = CASES / "apt-desktop-driver"
VERSION = "550.127.05"
RUNNING = "6.8.0-45-generic"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Key]:
    made = Key.make(tmp_path_factory.mktemp("gpg") / "home")
    yield made
    made.close()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """An Ubuntu host with the desktop driver 550.90.07 and headers for the kernel that it runs."""
    made = Host.make(tmp_path / "host", status=(DESKTOP / "status").read_text())
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(apt_root, "RUN", tmp_path / "run")
    monkeypatch.setattr(records, "DRIVER", tmp_path / "driver.json")
    monkeypatch.setenv("DPKG_ADMINDIR", str(made.root / "var/lib/dpkg"))
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "h", RUNNING, "", "x86_64")))
    made.kernels([RUNNING], [RUNNING])
    return made


@pytest.fixture
def declared(tmp_path: Path, key: Key) -> Declared:
    url = publish(tmp_path / "repo", (DESKTOP / "Packages").read_text(), key)
    return Declared(
        VERSION, "nvidia", "open", repository_url=url, keyring_url=f"file://{key.public}", keyring_sha256=key.sha256
    )


def look(host: Host, declared: Declared, busy: bool = False) -> list[Problem]:
    """What is found; that nothing is changed is part of every case."""
    files = digest(host.root)
    found = preflight.problems(declared, busy=busy, root=host.root)
    assert digest(host.root) == files
    assert list(apt_root.RUN.iterdir()) == []
    return found


def own_of(declared: Declared) -> Repository:
    assert declared.repository is not None
    return declared.repository


def kinds(problems: list[Problem]) -> list[ProblemKind]:
    return [problem.kind for problem in problems]


def test_the_desktop_parts_of_a_driver_go_with_it(host: Host, declared: Declared) -> None:
    """The case's Right: xserver-xorg-video-nvidia-550 is carried along, and apt would do it."""
    assert look(host, declared) == []


def test_what_apt_refuses_is_quoted_from_under_unmet_dependencies(
    host: Host, tmp_path: Path, key: Key, declared: Declared
) -> None:
    index = (DESKTOP / "Packages").read_text()
    wanting = index.replace(
        "Package: nvidia-utils-550\nVersion: 550.127.05-0ubuntu1\n",
        "Package: nvidia-utils-550\nVersion: 550.127.05-0ubuntu1\nDepends: libgone (= 7)\n",
    ).replace("Depends: libgone (= 7)\nArchitecture: amd64\nMaintainer: x\nSection: x\nPriority: optional\nDepends: ",
              "Architecture: amd64\nMaintainer: x\nSection: x\nPriority: optional\nDepends: libgone (= 7), ")  # fmt: skip
    assert wanting != index
    publish(tmp_path / "repo", wanting, key)
    (problem,) = look(host, declared)
    assert problem.kind is ProblemKind.TRANSACTION
    assert problem.cause == (
        f"apt refuses to install driver {VERSION}: nvidia-utils-550: Depends: libgone (= 7) but it is not installable"
    )
    documented("a transaction that apt refuses", problem.cause)


BROKEN = paragraph("demo-agent", "1.0", status="install ok half-configured")


def test_an_unrelated_package_that_is_half_configured(host: Host, declared: Declared) -> None:
    host.dpkg_status((DESKTOP / "status").read_text() + BROKEN)
    (problem,) = look(host, declared)
    assert problem.kind is ProblemKind.UNFINISHED
    assert "package demo-agent 1.0 is half-configured" in problem.cause
    assert problem.fix == "dpkg --configure demo-agent"
    assert problem.stop("a1").next == "ansible a1 -b -m ansible.builtin.command -a 'dpkg --configure demo-agent'"
    documented("a package that is half-configured", str(problem.stop("a1")))


def test_what_our_own_stopped_change_left_is_finished_by_running_again(
    host: Host, declared: Declared, tmp_path: Path
) -> None:
    host.dpkg_status((DESKTOP / "status").read_text() + BROKEN)
    (host.root / "var/lib/dpkg/updates/0001").write_text("")
    driver = {"version": "550.90.07", "source": "nvidia", "flavor": "open"}
    records.write(records.DRIVER, {"change": {"from": driver, "to": {**driver, "version": VERSION}, "began": "t"}})
    assert [(problem.kind, problem.warns) for problem in look(host, declared)] == [
        (ProblemKind.UNFINISHED, True),
        (ProblemKind.INTERRUPTED, True),
    ]


def test_a_change_that_is_not_accepted_yet_excuses_nobody_elses_package(host: Host, declared: Declared) -> None:
    """The driver is whole: what is half-way is not what a stopped change left."""
    host.dpkg_status((DESKTOP / "status").read_text() + BROKEN)
    driver = {"version": "550.90.07", "source": "nvidia", "flavor": "open"}
    records.write(records.DRIVER, {"change": {"from": None, "to": driver, "began": "t"}})
    assert [(problem.kind, problem.warns) for problem in look(host, declared)] == [(ProblemKind.UNFINISHED, False)]


def test_a_driver_package_whose_module_did_not_build_is_replaced(host: Host, declared: Declared) -> None:
    status = (DESKTOP / "status").read_text()
    before = "Package: nvidia-dkms-550-open\nStatus: install ok installed"
    host.dpkg_status(status.replace(before, before.replace("ok installed", "ok half-configured")))
    (problem,) = look(host, declared)
    assert (problem.kind, problem.warns) == (ProblemKind.UNFINISHED, True)
    assert "nvidia-dkms-550-open" in problem.cause


def test_an_interrupted_dpkg_and_a_torn_record(host: Host, declared: Declared) -> None:
    (host.root / "var/lib/dpkg/updates/0001").write_text("")
    (problem,) = look(host, declared)
    assert (problem.kind, problem.fix, problem.warns) == (ProblemKind.INTERRUPTED, "dpkg --configure -a", False)
    documented("a dpkg that was interrupted", str(problem.stop("a1")))
    records.DRIVER.write_text("{torn")
    (problem,) = look(host, declared)
    assert problem.kind is ProblemKind.RECORD
    assert str(records.DRIVER) in problem.cause


def test_dependencies_that_were_unmet_before(host: Host, declared: Declared) -> None:
    lacking = paragraph("demo-agent", "1.0", "Depends: libdemo (>= 2)", status="install ok installed")
    host.dpkg_status((DESKTOP / "status").read_text() + lacking)
    found = look(host, declared)
    assert kinds(found)[0] is ProblemKind.UNMET
    assert "demo-agent: Depends: libdemo (>= 2) but it is not installable" in found[0].cause
    assert found[0].fix == "apt-get install -y --fix-broken"
    documented("dependencies that were unmet before", str(found[0].stop("a1")))


def test_sources_that_apt_cannot_read(host: Host, declared: Declared) -> None:
    (host.root / "etc/apt/sources.list.d/bad.list").write_text("deb nonsense\n")
    found = look(host, declared)
    assert kinds(found)[0] is ProblemKind.SOURCES
    assert "Malformed entry 1 in list file" in found[0].cause


def cuda_keyring(
    host: Host, declared: Declared, signed_by: str = "/usr/share/keyrings/cuda-archive-keyring.gpg"
) -> Path:
    """The description that NVIDIA's cuda-keyring package brings (the case's file, with the address of this repository)."""
    text = (CASES / "apt-signed-by-twice/cuda-ubuntu2204-x86_64.list").read_text()
    address = "https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2204/x86_64/"
    assert address in text
    path = host.root / "etc/apt/sources.list.d/cuda-ubuntu2204-x86_64.list"
    text = text.replace(address, str(declared.repository_url))
    path.write_text(text.replace("/usr/share/keyrings/cuda-archive-keyring.gpg", signed_by))
    return path


def test_a_second_description_of_the_repository_is_refused_by_name(host: Host, declared: Declared) -> None:
    path = cuda_keyring(host, declared)
    (problem,) = look(host, declared)
    assert problem.kind is ProblemKind.DESCRIBED_TWICE
    assert "/etc/apt/sources.list.d/cuda-ubuntu2204-x86_64.list describes" in problem.cause
    name = "/etc/apt/sources.list.d/cuda-ubuntu2204-x86_64.list"
    assert problem.fix == f"mv {name} {name}.disabled"
    documented("apt-signed-by-twice", str(problem.stop("a1")))
    path.rename(path.with_name(f"{path.name}.disabled"))
    assert look(host, declared) == []


def test_the_real_apt_fails_with_both_descriptions(host: Host, declared: Declared, key: Key) -> None:
    """Why it is refused: what the host's apt would say from then on."""
    cuda_keyring(host, declared)
    with apt_root.throw_away(root=host.root) as apt:
        path = preflight.keyring_path(declared)
        own = apt_root.OwnSource(own_of(declared), key.public.read_bytes(), False, path)
        assert apt.add(own).ok  # alone
        answer = apt.check()
    assert (answer.ok, answer.fault) == (False, "signed_by")
    assert "Conflicting values set for option Signed-By" in answer.reason


def test_a_second_description_with_our_own_key_is_harmless(host: Host, declared: Declared) -> None:
    cuda_keyring(host, declared, "/etc/apt/keyrings/lockstep-nvidia.gpg")
    assert look(host, declared) == []


def test_lists_that_the_host_has_of_the_repository_are_read_anew_and_not_written(
    host: Host, declared: Declared, tmp_path: Path, key: Key
) -> None:
    """They are links in the throw-away root: apt must not write through them."""
    path = preflight.keyring_path(declared)
    own = apt_root.OwnSource(own_of(declared), key.public.read_bytes(), False, path)
    with apt_root.throw_away(root=host.root) as apt:
        assert apt.add(own).ok
        lists = [each for each in (apt.folder / "state/lists").iterdir() if each.is_file()]
        assert lists
        for each in lists:
            (host.root / "var/lib/apt/lists" / each.name).write_bytes(each.read_bytes())
    index = (DESKTOP / "Packages").read_text()
    publish(tmp_path / "repo", index.replace(f"{VERSION}-0ubuntu1", f"{VERSION}-0ubuntu2"), key)
    assert look(host, declared) == []  # 0ubuntu2 is in no list that the host has


def test_a_repository_that_this_key_has_not_signed(host: Host, declared: Declared, tmp_path: Path) -> None:
    (tmp_path / "repo/InRelease").unlink()
    (problem,) = look(host, declared)
    assert problem.kind is ProblemKind.REPOSITORY
    assert "is not signed" in problem.cause


@pytest.mark.parametrize(
    ("change", "kind", "fragment"),
    [
        ({"keyring_sha256": "ab"}, ProblemKind.KEYRING, "nvidia_driver_keyring_sha256 is ab"),
        (
            {"keyring_url": "file:///nowhere.gpg"},
            ProblemKind.KEYRING,
            "/nowhere.gpg: the repository's key cannot be read",
        ),
        ({"keyring_url": None}, ProblemKind.KEYRING, "set nvidia_driver_keyring_url"),
        ({"repository_url": "file:///nowhere/"}, ProblemKind.REPOSITORY, "file:///nowhere"),
        ({"version": "550.999.01"}, ProblemKind.NOT_ON_OFFER, "it offers 550.90.07, 550.127.05, 550.163.01"),
        ({"version": "550"}, ProblemKind.NOT_ON_OFFER, "expected a full version"),
    ],
)
def test_what_is_declared_wrong(
    host: Host, declared: Declared, change: dict[str, Any], kind: ProblemKind, fragment: str
) -> None:
    (problem,) = look(host, dataclasses.replace(declared, **change))
    assert problem.kind is kind
    assert fragment in problem.cause
    if change == {"version": "550.999.01"}:
        documented("a version that the repository does not have", problem.cause)


def test_a_driver_with_the_other_modules_alone_says_so(
    host: Host, declared: Declared, tmp_path: Path, key: Key
) -> None:
    """Debian's security archive has 535.309.01 with proprietary modules alone."""
    index = "\n\n".join(
        each for each in (DESKTOP / "Packages").read_text().split("\n\n") if "dkms-550-open\n" not in each
    )
    publish(tmp_path / "repo", index, key)
    (problem,) = look(host, declared)
    assert problem.kind is ProblemKind.NOT_ON_OFFER
    assert "with proprietary kernel modules alone: set nvidia_driver_flavor: proprietary" in problem.cause


def test_apt_is_not_let_remove_what_the_driver_is_no_part_of(
    host: Host, declared: Declared, tmp_path: Path, key: Key
) -> None:
    user = paragraph(
        "gpu-agent", "1.0", "Depends: nvidia-utils-550 (= 550.90.07-0ubuntu1)", status="install ok installed"
    )
    host.dpkg_status((DESKTOP / "status").read_text() + user)
    (problem,) = look(host, declared)
    assert problem.kind is ProblemKind.OTHERS
    assert "apt would remove gpu-agent" in problem.cause
    documented("a package that the driver would take away", problem.cause)


def test_kernels_of_the_next_boot_need_headers(host: Host, declared: Declared) -> None:
    """The case's tree: headers for the running kernel, none for the one that the next boot takes."""
    for line in (CASES / "kernel-next-boot-without-headers/tree.txt").read_text().splitlines():
        path = line.split()[0].lstrip("/")
        if "no build" not in line and not (host.root / path).exists():
            host.has(f"{path}/x" if path.endswith("build") else path)
    (problem,) = look(host, declared)
    assert problem.kind is ProblemKind.HEADERS
    assert "DKMS cannot build for 6.8.0-60-generic, a kernel that the next boot may take" in problem.cause
    assert problem.fix == "apt-get install -y linux-headers-6.8.0-60-generic"
    documented("kernel-next-boot-without-headers", str(problem.stop("a1")))
    host.kernels([], ["6.8.0-60-generic"])
    assert look(host, declared) == []


def test_a_driver_that_is_installed_needs_its_modules_for_the_next_boot_too(host: Host, declared: Declared) -> None:
    """Where nothing is to be installed, a kernel that modules were built for is in order without headers."""
    old = dataclasses.replace(declared, version="550.90.07")
    host.has("usr/sbin/dkms")
    host.kernels(["6.8.0-60-generic"], [])
    assert kinds(look(host, old)) == [ProblemKind.HEADERS]
    host.has("lib/modules/6.8.0-60-generic/updates/dkms/nvidia.ko.zst")
    assert look(host, old) == []


def test_a_lock_taken_while_the_host_is_looked_at_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else packages that somebody is just changing would be checked."""
    answers = [{}, {"/var/lib/dpkg/lock": "pid 812"}]
    monkeypatch.setattr(preflight, "locks", lambda: answers.pop(0))
    monkeypatch.setattr(preflight, "problems", lambda _declared, busy: [])
    assert preflight.check({"version": VERSION})["locks"] == {"/var/lib/dpkg/lock": "pid 812"}


def test_without_dkms_the_transaction_must_bring_it_before_headers_are_asked_for(
    host: Host, declared: Declared
) -> None:
    host.kernels(["6.8.0-60-generic"], [])
    assert look(host, declared) == []


def test_open_modules_on_volta(host: Host, declared: Declared) -> None:
    host.card(0x1DB5)
    (problem,) = look(host, declared)
    assert problem.kind is ProblemKind.FLAVOR
    assert "10de:1db5" in problem.cause
    assert "set nvidia_driver_flavor: proprietary (branch 580 at most)" in problem.cause
    documented("open-module-on-volta", problem.cause)


def prebuilt_offer(name: str) -> str:
    return (CASES / "prebuilt-modules-in-preflight" / name).read_text()


@pytest.mark.parametrize(
    ("offer", "made_for", "found"),
    [
        ("offer-without-modules.txt", VERSION, "missing: linux-modules-nvidia-550-server-open-6.8.0-45-generic"),
        ("offer-without-dkms.txt", VERSION, None),
        ("offer-without-dkms.txt", "550.120", "holds modules of driver 550.120, not of 550.127.05"),
    ],
)
def test_prebuilt_modules(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offer: str, made_for: str, found: str | None
) -> None:
    """Ubuntu's archive, from lists that the host's apt has already."""
    index = ""
    for line in prebuilt_offer(offer).splitlines():
        name, version = (field.strip() for field in line.split("|")[:2])
        common = f"Depends: nvidia-kernel-common-550-server (<= {made_for}-9), nvidia-kernel-common-550-server (>= {made_for})"
        index += paragraph(name, version, *([common] if name.startswith("linux-modules") else []))
    host.dpkg_status("")
    archive = publish(tmp_path / "archive", index, None)
    (host.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {archive} ./\n")
    with apt_root.throw_away(root=host.root) as apt:  # what an "apt-get update" of the host leaves
        assert apt.apt_get(["update"], 30).ok
        for path in (apt.folder / "state/lists").glob("*Packages*"):
            (host.root / "var/lib/apt/lists" / path.name).write_bytes(path.read_bytes())
    problems = look(host, Declared(VERSION, "ubuntu", "open", prebuilt_modules=True))
    text = "; ".join(problem.cause for problem in problems)
    assert (found in text) if found else problems == []
    if found and "missing" in found:
        documented("prebuilt-modules-in-preflight", text)


def test_while_a_lock_is_held_its_holder_is_named_and_no_package_is_checked(host: Host, declared: Declared) -> None:
    """dpkg's own run leaves packages half-way for as long as it lasts."""
    host.dpkg_status((DESKTOP / "status").read_text() + BROKEN)
    lock = host.root / "var/lib/dpkg/lock-frontend"
    lock.touch()
    with held(lock) as child:
        assert preflight.locks(host.root)["/var/lib/dpkg/lock-frontend"].startswith(f"pid {child.pid} (")
        assert look(host, declared, busy=True) == []
    assert preflight.locks(host.root) == {}
    assert kinds(look(host, declared)) == [ProblemKind.UNFINISHED]


def test_nothing_is_asked_where_the_platform_installs_the_driver(host: Host) -> None:
    host.card(0x1DB5)
    assert look(host, Declared(VERSION, "verify")) == []


def test_the_machine_that_runs_this_is_left_as_it_was(host: Host, declared: Declared) -> None:
    own = [Path(name) for name in ("/etc/apt", "/var/lib/dpkg") if os.access(name, os.R_OK)]
    before = [digest(folder) for folder in own]
    preflight.problems(declared, root=host.root)
    assert [digest(folder) for folder in own] == before


def test_the_simulation_has_every_pin_and_version(
    host: Host, declared: Declared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same arguments as the install, so that the two cannot differ."""
    asked: list[list[str]] = []
    real = apt_root.AptRoot.apt_get

    def apt_get(self: apt_root.AptRoot, arguments: Any, deadline: float) -> Any:
        asked.append([*arguments])
        if "-s" in arguments:
            preferences = (self.folder / "etc/preferences.d" / driver_install.PREFERENCES.name).read_text()
            assert f"Package: nvidia-utils-550\nPin: version {VERSION}-0ubuntu1\nPin-Priority: 1002" in preferences
        return real(self, arguments, deadline)

    monkeypatch.setattr(apt_root.AptRoot, "apt_get", apt_get)
    assert look(host, declared) == []
    (simulated,) = [each for each in asked if "-s" in each]
    assert {*driver_install.APT_OPTIONS} <= {*simulated}
    assert f"xserver-xorg-video-nvidia-550={VERSION}-0ubuntu1" in simulated
    assert boot_kernels.read(host.root).running == RUNNING
