"""What is done to a host's packages, decided from what is desired, offered and installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import install as driver_install
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import package_command
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.install import Plan, StepFailed
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.packages import PackageError, Requirement

NEW, OLD = "580.95.05", "550.90.07"
WANTS = [Requirement(("libcuda1",), NEW), Requirement(("nvidia-kernel-open-dkms",), NEW)]
OFFER = {name: [f"{OLD}-1", f"{NEW}-1"] for name in ("libcuda1", "nvidia-kernel-open-dkms", "libnvidia-nvvm4")}


def package(version: str, *, hold: bool = True, broken: bool = False) -> dict[str, Any]:
    return {"version": version, "hold": hold, "broken": broken}


def plan(packages: dict[str, Any], **more: Any) -> Plan:
    return driver_install.plan(NEW, WANTS, OFFER, packages, interrupted=False, **more)


READY = {"libcuda1": package(f"{NEW}-1"), "nvidia-kernel-open-dkms": package(f"{NEW}-1")}


def test_a_ready_host_is_up_to_date() -> None:
    assert plan(READY).needed is False


def test_a_fresh_host_gets_everything_and_holds_it() -> None:
    work = plan({})
    assert work.install == {"libcuda1": f"{NEW}-1", "nvidia-kernel-open-dkms": f"{NEW}-1"}
    assert work.hold == ("libcuda1", "nvidia-kernel-open-dkms")
    assert (work.remove, work.purge, work.repair) == ((), (), False)


def test_a_lost_hold_is_noticed() -> None:
    work = plan({**READY, "libcuda1": package(f"{NEW}-1", hold=False)})
    assert work.hold == ("libcuda1",)
    assert work.needed
    assert not work.install


def test_modules_of_the_other_flavour_go_whatever_their_version() -> None:
    """They conflict with the declared ones, or would be built and loaded in their place."""
    other = {"nvidia-kernel-dkms": package(f"{NEW}-1")}
    assert plan({**READY, **other}, unwanted={"nvidia-kernel-dkms"}).remove == ("nvidia-kernel-dkms",)
    assert plan({**READY, **other}).remove == ()
    older = {"nvidia-kernel-open-dkms": package(f"{OLD}-1")}
    assert plan(older, unwanted={"nvidia-kernel-open-dkms"}).remove == ()  # it is desired


def test_an_install_ends_with_every_driver_package_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    rows = ["install\tinstalled\tlibcuda1\t580.95.05-1", "hold\tinstalled\tlibnvidia-ml1\t580.95.05-1"]
    monkeypatch.setattr(driver_install, "pin", lambda text: None)
    monkeypatch.setattr(driver_install.apt_lock, "wait", lambda deadline: None)
    monkeypatch.setattr(
        driver_install, "_command", lambda argv, *_how, **more: ran.append([*argv, *more.values()]) or ""
    )

    def queried(argv: Any, _deadline: float) -> CommandResult:
        text = "\n".join(rows)
        if ran and "--set-selections" in ran[-1]:
            text = text.replace("install\t", "hold\t")
        return CommandResult(0, text) if argv[0] == "dpkg-query" else CommandResult(1, "")

    monkeypatch.setattr(driver_install, "run_command", queried)
    driver_install.install(plan({}), NEW, deadline=5, lock_deadline=5)
    assert "install" in ran[0]
    assert ran[-1] == ["dpkg", "--set-selections", "libcuda1\thold\n"]


@pytest.mark.parametrize("verb", ["fetch", "install"])
def test_what_goes_is_named_when_it_is_fetched_too(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else apt refuses to fetch what conflicts with a package that the install removes."""
    ran: list[list[str]] = []
    monkeypatch.setattr(driver_install, "pin", lambda text: None)
    monkeypatch.setattr(driver_install, "hold", lambda *_limits: [])
    monkeypatch.setattr(driver_install.apt_lock, "wait", lambda deadline: None)
    monkeypatch.setattr(driver_install, "run_command", lambda argv, deadline: CommandResult(1))
    monkeypatch.setattr(driver_install, "_command", lambda argv, *_how: ran.append(list(argv)) or "'uri' file 1 x")
    work = plan({"nvidia-kernel-dkms": package(f"{OLD}-1")}, unwanted={"nvidia-kernel-dkms"})
    getattr(driver_install, verb)(work, NEW, deadline=5, lock_deadline=5)
    asked = [argv for argv in ran if "install" in argv]
    assert asked
    assert all(argv[-len(driver_install.transaction(work)) :] == driver_install.transaction(work) for argv in asked)
    assert driver_install.transaction(work)[-1] == "nvidia-kernel-dkms-"


@pytest.mark.parametrize("verb", ["fetch", "install"])
def test_apt_may_change_what_is_held_and_go_back(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every driver package is held, so without these options no change would ever be made."""
    ran: list[list[str]] = []
    monkeypatch.setattr(driver_install, "pin", lambda text: None)
    monkeypatch.setattr(driver_install, "hold", lambda *_limits: [])
    monkeypatch.setattr(driver_install.apt_lock, "wait", lambda deadline: None)
    monkeypatch.setattr(driver_install, "run_command", lambda argv, deadline: CommandResult(1))
    monkeypatch.setattr(driver_install, "_command", lambda argv, *_how: ran.append(list(argv)) or "'uri' file 1 x")
    getattr(driver_install, verb)(plan({"libcuda1": package(f"{OLD}-1")}), NEW, deadline=5, lock_deadline=5)
    assert ran
    for argv in ran:
        assert argv[0] == "apt-get"
        assert {"--allow-change-held-packages", "--allow-downgrades", "-y"} <= set(argv)


def test_dependencies_come_along_where_they_can_and_go_where_they_cannot() -> None:
    work = plan({"libcuda1": package(f"{OLD}-1"), "libnvidia-nvvm4": package(f"{OLD}-1"), "nvidia-dkms-550": package(f"{OLD}-1"),
                 "nvidia-settings": package("560.35.05-1")})  # fmt: skip
    assert work.install["libnvidia-nvvm4"] == f"{NEW}-1"
    assert work.remove == ("nvidia-dkms-550",)


@pytest.mark.parametrize(
    ("packages", "leftovers", "purge"),
    [
        ({"nvidia-driver-pinning-595.58.03": package("595.58.03-1")}, [], ("nvidia-driver-pinning-595.58.03",)),
        ({}, ["nvidia-driver-pinning-595.58.03"], ("nvidia-driver-pinning-595.58.03",)),
        ({}, [], ()),
    ],
)
def test_the_pin_of_another_driver_is_purged(
    packages: dict[str, Any], leftovers: list[str], purge: tuple[str, ...]
) -> None:
    work = plan({**READY, **packages}, leftover_pins=leftovers)
    assert work.purge == purge
    assert work.remove == ()


def test_what_dpkg_left_half_way_is_installed_again() -> None:
    work = plan({**READY, "libcuda1": package(f"{NEW}-1", broken=True)})
    assert work.repair
    assert work.install == {"libcuda1": f"{NEW}-1"}


def test_a_broken_package_that_has_to_go_is_no_reason_to_stop() -> None:
    work = plan({**READY, "nvidia-dkms-550": package(f"{OLD}-1", broken=True)})
    assert work.remove == ("nvidia-dkms-550",)
    assert work.broken == ()


def test_a_driver_that_is_not_offered_is_refused_before_anything() -> None:
    with pytest.raises(PackageError, match="is not in the repository"):
        driver_install.plan("590.48.01", [Requirement(("libcuda1",), "590.48.01")], OFFER, READY, interrupted=False)


def test_preferences_pin_every_package_and_its_kin() -> None:
    text = driver_install.preferences(NEW, {"libcuda1": f"{NEW}-1"})
    assert f"Package: libcuda1\nPin: version {NEW}-1\nPin-Priority: 1002" in text
    assert (
        "nvidia-* libnvidia-* libcuda1 libcudadebugger1 cuda-drivers* firmware-nvidia-* xserver-xorg-video-nvidia*"
        in text
    )
    assert f"\nPin: version {NEW}-*" in text
    assert text.index(f"Pin: version {NEW}-1\nPin-Priority: 1002") < text.index(f"Pin: version {NEW}-*")
    # Debian 13 has nvidia-persistenced 550.163.01-1 beside the driver's 550.163.01-2.
    beside = driver_install.preferences(NEW, {"libcuda1": f"{NEW}-2", "nvidia-persistenced": f"{NEW}-1"})
    assert f"Pin: version {NEW}-2\nPin-Priority: 1002" in beside
    mixed = driver_install.preferences(NEW, {"libcuda1": f"{NEW}-1", "nvidia-fabricmanager": f"{NEW}-2"})
    assert mixed.count("Pin-Priority: 1002") == 2  # the named ones alone


def test_a_changed_preferences_file_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(driver_install, "PREFERENCES", tmp_path / "driver.pref")
    text = driver_install.preferences(NEW, {"libcuda1": f"{NEW}-1"})
    assert driver_install.current_preferences() is None
    driver_install.pin(text)
    assert driver_install.current_preferences() == text
    driver_install.PREFERENCES.write_text(text.replace("1001", "500"))
    assert driver_install.current_preferences() != text


def test_files_that_are_missing_from_the_cache() -> None:
    uris = "Reading package lists...\n'http://mirror/a_1.deb' a_1.deb 1234 SHA256:ab\n'http://mirror/b_2.deb' b_2.deb 1 MD5Sum:c\n"
    assert driver_install.missing_files(uris) == ["a_1.deb", "b_2.deb"]
    assert driver_install.missing_files("Reading package lists...\n") == []


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("Reading...\nE: Version '1' for 'libcuda1' was not found\n", "Version '1' for 'libcuda1' was not found"),
        ("Error! Bad return status for module build on kernel: 6.1.0\ndpkg: error processing package nvidia-dkms (--configure):\n"
         "E: Sub-process /usr/bin/dpkg returned an error code (1)\n",
         "the module does not build for kernel 6.1.0"),
        ("nothing that helps\n", "exit status 100"),
    ],
)  # fmt: skip
def test_failure_reason(output: str, reason: str) -> None:
    assert package_command.failure_reason(output, 100) == reason


def test_a_failing_command_carries_its_output() -> None:
    with pytest.raises(StepFailed, match="trying: broken") as caught:
        driver_install._command(["sh", "-c", "echo before; echo 'E: broken'; exit 3"], 5, "trying")
    assert caught.value.log == "before\nE: broken\n"


def test_a_command_past_its_deadline_is_ended() -> None:
    with pytest.raises(StepFailed, match=r"ended at its deadline of 0\.2 s"):
        driver_install._command(["sleep", "30"], 0.2, "waiting")


def test_the_run_after_an_upgrade_writes_the_same_preferences() -> None:
    """What is carried along on the way is no longer carried once it is there: that must not show in the file."""
    old = {name: package(f"{OLD}-1") for name in OFFER}
    new = {name: package(f"{NEW}-1") for name in OFFER}
    upgrade, again = plan(old), plan(new)
    assert "libnvidia-nvvm4" in upgrade.install
    assert driver_install.preferences(NEW, upgrade.pins) == driver_install.preferences(NEW, again.pins)
    assert again.needed is False
