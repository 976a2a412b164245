"""Installing a driver and going back with the real apt and dpkg, in a root of their own, beside a package that fails.

Kept apart from this machine: apt and dpkg are made to work below a folder, and scripts of packages run outside of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import run_command
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import apt_lock, dpkg
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import install as driver_install
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import repository as apt_repository
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import undo as driver_undo
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.change_record import Before, Driver
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.install import Plan, StepFailed
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.packages import Requirement
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.state import DriverState, driver_state

OLD, NEW = "550.90.07", "550.127.05"
DKMS, LIBRARY = "nvidia-kernel-open-dkms", "libcuda1"
LIMITS = {"deadline": 60.0, "lock_deadline": 5.0}
TARGET: Driver = {"version": OLD, "source": "mirror", "flavor": "open"}


@dataclasses.dataclass(frozen=True)
class Root:
    """A system of apt and dpkg in a folder, with a flat repository and the log of what was run."""

    folder: Path

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    def package(self, name: str, version: str, script: str = "", depends: str = "") -> Path:
        """Build a package whose post-installation script is ``script``, and offer it."""
        tree = self.folder / "build" / f"{name}-{version}"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "usr/share" / name).mkdir(parents=True)
        (tree / "usr/share" / name / "version").write_text(version)
        fields = {"Package": name, "Version": version, "Architecture": "all", "Maintainer": "Test <test@example.com>",
                  "Description": "test"} | ({"Depends": depends} if depends else {})  # fmt: skip
        (tree / "DEBIAN/control").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
        if script:
            (tree / "DEBIAN/postinst").write_text(f"#!/bin/sh\n{script}\n")
            (tree / "DEBIAN/postinst").chmod(0o755)
        path = self.repository / f"{name}_{version}_all.deb"
        subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "-b", tree, path], check=True, capture_output=True)
        return path

    def publish(self) -> None:
        """Write the repository's index, and have apt read it."""
        paragraphs = []
        for path in sorted(self.repository.glob("*.deb")):
            fields = subprocess.run(["dpkg-deb", "-f", path], check=True, capture_output=True, text=True).stdout
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            paragraphs.append(f"{fields}Filename: ./{path.name}\nSize: {path.stat().st_size}\nSHA256: {digest}\n")
        (self.repository / "Packages").write_text("\n".join(paragraphs))
        subprocess.run(["apt-get", "-q", "update"], check=True, capture_output=True)

    def ran(self) -> list[str]:
        return (self.folder / "ran").read_text().splitlines() if (self.folder / "ran").exists() else []

    def breaks(self, kind: str) -> None:
        """An administrator installs something that has nothing to do with the driver, and it stays half-way."""
        depends = "nowhere-to-be-found" if kind == "unpacked" else ""
        path = self.package("acme-agent", "1.0", "exit 1", depends)
        subprocess.run(["dpkg", "--unpack" if kind == "unpacked" else "--install", path], capture_output=True)
        assert f"install\t{kind}\tacme-agent\t1.0" in run_command([*dpkg.QUERY, "acme-agent"], 10).stdout


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    """A host with the old driver installed, pinned and held, and both on offer."""
    root, system = Root(tmp_path), tmp_path / "root"
    for name in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "etc/apt/preferences.d",
                 "etc/apt/apt.conf.d", "etc/apt/trusted.gpg.d", "var/lib/apt/lists/partial",
                 "var/cache/apt/archives/partial", "var/log/apt"):  # fmt: skip
        (system / name).mkdir(parents=True)
    (system / "var/lib/dpkg/status").touch()
    root.repository.mkdir()
    (system / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{root.repository} ./\n")
    commands = tmp_path / "bin"
    commands.mkdir()
    apart = f"--root={system} --force-script-chrootless --force-not-root --log={system}/dpkg.log"
    for name, options in (("dpkg", apart), ("apt-get", ""), ("apt-mark", "")):
        log = f'echo "{name} $*" >> {tmp_path}/ran'
        (commands / name).write_text(f'#!/bin/sh\n{log}\nexec /usr/bin/{name} {options} "$@"\n')
        (commands / name).chmod(0o755)
    (tmp_path / "apt.conf").write_text(
        f'Dir "{system}";\nDir::State::status "{system}/var/lib/dpkg/status";\nDir::Bin::dpkg "{commands}/dpkg";\n'
        'APT::Sandbox::User "root";\nAcquire::Languages "none";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.setenv("DPKG_ADMINDIR", str(system / "var/lib/dpkg"))
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}:/usr/sbin:/sbin")
    monkeypatch.setattr(driver_install, "PREFERENCES", system / "etc/apt/preferences.d/lockstep-nvidia-driver.pref")
    monkeypatch.setattr(apt_lock, "LOCKS", ())  # those of this machine
    for version in (OLD, NEW):
        root.package(LIBRARY, f"{version}-1")
        failing = f"echo {version} >>{tmp_path}/builds; test ! -e {tmp_path}/dkms-fails" if version == NEW else ""
        root.package(DKMS, f"{version}-1", failing, f"{LIBRARY} (= {version}-1)")
    root.publish()
    driver_install.install(plan(root, OLD), OLD, **LIMITS)
    assert installed() == {LIBRARY: f"{OLD}-1 held", DKMS: f"{OLD}-1 held"}
    return root


def plan(root: Root, version: str) -> Plan:
    requirements = [Requirement((name,), version) for name in (LIBRARY, DKMS)]
    offered = apt_repository.offered(apt_repository.Repository(f"file:{root.repository}"))
    return driver_install.plan(version, requirements, offered, dpkg.installed(), interrupted=False)


def installed() -> dict[str, str]:
    return {name: f"{package['version']}{' held' * package['hold']}{' half-way' * package['broken']}"
            for name, package in dpkg.installed().items()}  # fmt: skip


def change(root: Root) -> tuple[StepFailed, Before]:
    """Try to install the new driver, as a wave does; what it failed with, and what it had found."""
    before = driver_undo.before(dpkg.installed(), driver_install.current_preferences())
    with pytest.raises(StepFailed) as caught:
        driver_install.install(plan(root, NEW), NEW, **LIMITS)
    return caught.value, before


def needed(before: Before) -> dict[driver_undo.UndoStep, str]:
    now: DriverState = {**driver_state(also=()), "loaded_version": OLD}  # type: ignore[misc]
    return driver_undo.undo(TARGET, before, now, driver_install.current_preferences())


def test_an_install_that_apt_refuses_is_undone_without_apt(root: Root) -> None:
    """The case that was seen: between preflight and the wave a package that is not ours loses its way."""
    root.breaks("unpacked")
    pins = driver_install.current_preferences()
    failure, before = change(root)
    assert "acme-agent (unpacked)" in str(failure)
    assert ".." not in str(failure)
    assert failure.next == "sudo apt-get install -f"
    assert installed() == {LIBRARY: f"{OLD}-1 held", DKMS: f"{OLD}-1 held"}
    assert set(needed(before)) == {driver_undo.UndoStep.HOLD}, "the pin of the new driver"
    since = len(root.ran())
    assert driver_install.keep(OLD, before["preferences"], **LIMITS)
    assert root.ran()[since:] == [], "nothing was to be installed or held"
    assert driver_install.current_preferences() == pins
    assert needed(before) == {}
    assert not driver_install.keep(OLD, before["preferences"], **LIMITS)


def test_an_install_that_another_packages_script_fails_is_taken_back(root: Root) -> None:
    root.breaks("half-configured")
    failure, before = change(root)
    assert "acme-agent (half-configured)" in str(failure)
    assert failure.next == "sudo dpkg --configure -a"
    assert installed() == {LIBRARY: f"{NEW}-1 held", DKMS: f"{NEW}-1 held"}, "a failed install left it without a hold"
    assert set(needed(before)) == {driver_undo.UndoStep.INSTALL}
    (warning,) = driver_install.install(plan(root, OLD), OLD, tolerate_unrelated=True, **LIMITS)
    assert "acme-agent (half-configured)" in warning
    assert "sudo dpkg --configure -a" in warning
    assert installed() == {LIBRARY: f"{OLD}-1 held", DKMS: f"{OLD}-1 held"}
    assert needed(before) == {}


def test_going_back_where_apt_refuses_all_work(root: Root) -> None:
    """Unmet dependencies of another package: apt-get installs nothing at all, neither forwards nor back."""
    driver_install.install(plan(root, NEW), NEW, **LIMITS)
    root.breaks("unpacked")
    with pytest.raises(StepFailed, match=r"Depends: nowhere-to-be-found but it is not installable"):
        driver_install.install(plan(root, OLD), OLD, **LIMITS)
    (warning,) = driver_install.install(plan(root, OLD), OLD, tolerate_unrelated=True, **LIMITS)
    assert "sudo apt-get install -f" in warning
    assert installed() == {LIBRARY: f"{OLD}-1 held", DKMS: f"{OLD}-1 held"}


@pytest.mark.parametrize("broken", [False, True], ids=["alone", "beside another package that fails"])
def test_a_driver_that_stays_half_way_is_taken_back(root: Root, broken: bool) -> None:
    if broken:
        root.breaks("half-configured")
    (root.folder / "dkms-fails").touch()
    failure, before = change(root)
    assert ("acme-agent" in str(failure)) is broken
    assert installed() == {LIBRARY: f"{NEW}-1 held", DKMS: f"{NEW}-1 held half-way"}
    assert "left half-way by dpkg: nvidia-kernel-open-dkms" in needed(before)[driver_undo.UndoStep.INSTALL]
    warnings = driver_install.install(plan(root, OLD), OLD, tolerate_unrelated=True, **LIMITS)
    assert len(warnings) == broken
    assert installed() == {LIBRARY: f"{OLD}-1 held", DKMS: f"{OLD}-1 held"}


def test_a_build_that_fails_runs_once_in_each_run_and_not_at_all_on_the_way_back(root: Root) -> None:
    """A real one took up to nine minutes; dpkg's repair before the transaction would begin with another."""
    builds = root.folder / "builds"
    (root.folder / "dkms-fails").touch()
    change(root)
    assert builds.read_text().splitlines() == [NEW]
    with pytest.raises(StepFailed):
        driver_install.install(plan(root, NEW), NEW, **LIMITS)
    assert builds.read_text().splitlines() == [NEW, NEW]
    assert installed() == {LIBRARY: f"{NEW}-1 held", DKMS: f"{NEW}-1 held half-way"}
    driver_install.install(plan(root, OLD), OLD, **LIMITS)
    assert builds.read_text().splitlines() == [NEW, NEW]
    assert installed() == {LIBRARY: f"{OLD}-1 held", DKMS: f"{OLD}-1 held"}


def test_a_dpkg_that_was_killed_is_no_obstacle_to_going_back(root: Root) -> None:
    """apt-get refuses all work until dpkg has written down its journal."""
    status = root.folder / "root/var/lib/dpkg/status"
    journal = next(stanza for stanza in status.read_text().split("\n\n") if f"Package: {DKMS}\n" in stanza)
    half = journal.replace("hold ok installed", "hold ok half-configured")
    (root.folder / "root/var/lib/dpkg/updates/0000").write_text(f"{half.strip()}\n")
    work = dataclasses.replace(plan(root, NEW), repair=True)
    assert work.broken == (DKMS,)
    driver_install.install(work, NEW, **LIMITS)
    assert installed() == {LIBRARY: f"{NEW}-1 held", DKMS: f"{NEW}-1 held"}


def test_what_a_driver_itself_lacks_is_never_tolerated(root: Root) -> None:
    root.breaks("half-configured")
    (root.folder / "dkms-fails").touch()
    with pytest.raises(StepFailed, match=r"without apt, configuring driver 550\.127\.05"):
        driver_install.install(plan(root, NEW), NEW, tolerate_unrelated=True, **LIMITS)
    assert installed() == {LIBRARY: f"{NEW}-1 held", DKMS: f"{NEW}-1 held half-way"}


def test_the_next_run_restores_holds_that_a_killed_one_left_off(root: Root) -> None:
    """apt drops the hold of what it changes: a run that is killed right then leaves the host without."""
    work = plan(root, NEW)
    driver_install.pin(driver_install.preferences(NEW, work.pins))
    driver_install._transaction(work, NEW, 60.0, 5.0, False)
    assert installed() == {LIBRARY: f"{NEW}-1", DKMS: f"{NEW}-1"}
    again = plan(root, NEW)
    assert again.needed
    since = len(root.ran())
    driver_install.install(again, NEW, **LIMITS)
    assert installed() == {LIBRARY: f"{NEW}-1 held", DKMS: f"{NEW}-1 held"}
    assert not [line for line in root.ran()[since:] if line.startswith("apt-get")], "it was installed again"


def test_holds_are_back_where_dpkg_was_killed(root: Root) -> None:
    """What it had not written down yet lies in its journal, and apt-get refuses all work until that is configured."""
    status = root.folder / "root/var/lib/dpkg/status"
    stanzas = status.read_text().split("\n\n")
    journal = next(stanza for stanza in stanzas if f"Package: {LIBRARY}\n" in stanza)
    half = journal.replace("hold ok installed", "install ok unpacked")
    assert half != journal
    (root.folder / "root/var/lib/dpkg/updates/0000").write_text(f"{half.strip()}\n")
    assert dpkg.interrupted(root.folder / "root")
    assert installed()[LIBRARY] == f"{OLD}-1 half-way"
    assert driver_install.hold(60.0, 5.0) == [LIBRARY]
    assert installed()[LIBRARY] == f"{OLD}-1 held half-way"
    driver_install.install(plan(root, OLD), OLD, tolerate_unrelated=True, **LIMITS)
    assert installed() == {LIBRARY: f"{OLD}-1 held", DKMS: f"{OLD}-1 held"}
