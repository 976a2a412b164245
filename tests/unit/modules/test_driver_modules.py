"""The driver's modules: parameters, results, and that check mode changes nothing."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import apt_lock, kernel_module, preflight
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import install as driver_install
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import state as driver_state
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.package_problems import Problem, ProblemKind
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import driver as driver_gate
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.codes import Code
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.result import GateResult
from ansible_collections.lockstep.vllm.plugins.modules import nvidia_driver_packages

PACKAGE = "ansible_collections.lockstep.vllm.plugins.modules"
A = {"version": "550.90.07", "source": "nvidia", "flavor": "open"}
B = {"version": "550.127.05", "source": "nvidia", "flavor": "open"}
QUERIED = "hold\tinstalled\tlibcuda1\t550.90.07-1"


def call(capsys: pytest.CaptureFixture[str], module: str, **arguments: Any) -> dict[str, Any]:
    """Run a module as Ansible does and return what it printed."""
    entry_point = importlib.import_module(f"{PACKAGE}.{module}")
    with patch_module_args(arguments), pytest.raises(SystemExit):
        entry_point.main()
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "driver.json"
    monkeypatch.setattr(records, "DRIVER", path)
    monkeypatch.setattr(records, "EVIDENCE", tmp_path / "evidence")
    monkeypatch.setattr(driver_state, "loaded_version", lambda *_root: "550.127.05")
    return path


def test_accepting_ends_a_change(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records.write(record, {"verified": A, "change": {"from": A, "to": B, "began": "t"}})
    result = call(capsys, "nvidia_driver_change", state="accepted", **A)
    assert result["changed"] is True
    kept = records.read(record)
    assert kept is not None
    assert (kept["verified"]["version"], kept["change"]) == ("550.127.05", None)
    assert call(capsys, "nvidia_driver_change", state="accepted", **A)["changed"] is False


def test_accepting_in_check_mode_writes_nothing(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "nvidia_driver_change", state="accepted", _ansible_check_mode=True, **B)
    assert result["changed"] is True
    assert not record.exists()


def test_accepting_what_does_not_run_fails(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "550.90.07 cannot be accepted" in call(capsys, "nvidia_driver_change", state="accepted", **A)["msg"]


def test_what_can_be_restored(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "restore" not in call(capsys, "nvidia_driver_change")
    assert call(capsys, "nvidia_driver_change", state="restorable")["failed"] is True
    records.write(record, {"verified": A, "change": {"from": A, "to": B, "began": "t"}})
    result = call(capsys, "nvidia_driver_change", state="restorable")
    assert result["restore"] == A
    assert result["undo"] == {
        "install": "package absent, 550.90.07 was",
        "load": "driver 550.127.05 is loaded, 550.90.07 was",
    }


def test_a_damaged_record_is_named(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record.write_text("{torn")
    assert str(record) in call(capsys, "nvidia_driver_change")["msg"]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The gate's answer, and what it was asked."""
    answer: dict[str, Any] = {"result": GateResult("driver", "pass", 0.1, warnings=("careful",))}

    def check(expected: driver_gate.Expected, **more: Any) -> dict[str, Any]:
        answer["expected"], answer["more"] = expected, more
        return {"gate": as_json(answer["result"]), "issues": [], "state": {}}

    monkeypatch.setattr(driver_gate, "check", check)
    return answer


def test_a_passing_gate_warns(
    record: Path, gate: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where a controller plugin was imported in the same process, Ansible shows warnings instead of returning them.
    warned: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _module, text: warned.append(text))
    result = call(capsys, "driver_verify", gpus=8, version="550.127.05", host="a1")
    assert result["gate"]["verdict"] == "pass"
    assert result["changed"] is False
    assert warned == ["careful"]
    assert gate["more"]["host"] == "a1"


def test_a_failing_gate_names_cause_and_next_step(
    record: Path, gate: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    gate["result"] = GateResult("driver", "fail", 0.1, code=Code.XID, cause="Xid 79", next="reboot a1")
    result = call(capsys, "driver_verify", gpus=8, host="a1", _ansible_check_mode=True)
    assert (result["gate"]["evidence"], records.EVIDENCE.exists()) == ([], False)
    result = call(capsys, "driver_verify", gpus=8, host="a1", run="r1")
    assert result["msg"] == "driver gate: xid on a1: Xid 79. Next: reboot a1"
    assert result["next"] == "reboot a1"
    assert all(path.startswith(f"{records.EVIDENCE}/r1/driver/") for path in result["gate"]["evidence"])
    quiet = call(capsys, "driver_verify", gpus=8, fail=False)
    assert "failed" not in quiet
    assert quiet["gate"]["code"] == "xid"


def test_a_failing_install_leaves_apts_output(
    record: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_module: AnsibleModule) -> None:
        raise driver_install.StepFailed("installing driver 550.127.05: E: broken", "\n".join(map(str, range(100))))

    monkeypatch.setattr(nvidia_driver_packages, "apply", fails)
    result = call(capsys, "nvidia_driver_packages", version="550.127.05", source="debian", run="r1")
    assert result["msg"] == "installing driver 550.127.05: E: broken. Next: less /var/log/apt/term.log"
    assert result["next"] == "less /var/log/apt/term.log"
    assert result["log"].splitlines() == [str(number) for number in range(70, 100)]
    log = records.EVIDENCE / "r1" / "driver-550.127.05-installed" / "command.log"
    assert str(log) in result["evidence"]
    assert len(log.read_text(encoding="utf-8").splitlines()) == 100


def test_a_failing_load_leaves_evidence(
    record: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_what: Any, **_how: Any) -> None:
        raise kernel_module.LoadFailed("modprobe nvidia: Key was rejected by service", "dmesg")

    monkeypatch.setattr(kernel_module, "load", fails)
    result = call(capsys, "nvidia_driver_load", version="550.127.05", run="r1")
    assert (result["msg"], result["next"]) == ("modprobe nvidia: Key was rejected by service. Next: dmesg", "dmesg")
    assert all(path.startswith(f"{records.EVIDENCE}/r1/driver-550.127.05-load/") for path in result["evidence"])


@pytest.mark.parametrize(("given", "expected"), [(None, "550.127.05"), ("580.95.05", "580.95.05")])
def test_the_version_is_the_host_s_own_where_none_is_given(
    record: Path, gate: dict[str, Any], capsys: pytest.CaptureFixture[str], given: str | None, expected: str
) -> None:
    records.write(record, {"verified": A, "change": {"from": A, "to": B, "began": "t"}})
    call(capsys, "driver_verify", gpus=8, **({"version": given} if given else {}))
    assert gate["expected"].version == expected


def test_load_in_check_mode_only_decides(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_module, "loaded_now", lambda: kernel_module.Loaded(None, {}, []))
    monkeypatch.setattr(kernel_module, "load", lambda *_a, **_k: pytest.fail("it acted"))
    result = call(capsys, "nvidia_driver_load", version="550.127.05", _ansible_check_mode=True)
    assert (result["action"], result["changed"]) == ("reload", True)


@pytest.mark.parametrize("source", ["nvidia", "mirror"])
def test_a_repository_has_to_be_given(capsys: pytest.CaptureFixture[str], source: str) -> None:
    assert "repository_url" in call(capsys, "nvidia_driver_packages", version="550.127.05", source=source)["msg"]


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> list[Problem]:
    """What the look at the host's packages finds."""
    found: list[Problem] = []
    monkeypatch.setattr(preflight, "problems", lambda _declared: found)
    monkeypatch.setattr(preflight, "sources", lambda _declared: [])
    monkeypatch.setattr(apt_lock, "wait", lambda _deadline: 0.0)
    return found


def test_preflight_fails_with_every_cause_and_the_first_command(
    packages: list[Problem], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _module, text: warned.append(text))
    asked = {"version": "550.127.05", "checks": ["locks", "packages"], "source": "debian"}
    assert call(capsys, "nvidia_driver_preflight", **asked)["code"] == "ready"
    packages += [Problem(ProblemKind.UNFINISHED, "nvidia-dkms is half-configured", "dpkg --configure -a", warns=True)]
    result = call(capsys, "nvidia_driver_preflight", **asked)
    assert (result["code"], result["changed"], warned) == ("ready", False, ["nvidia-dkms is half-configured"])
    packages += [
        Problem(ProblemKind.FLAVOR, "GPU is older"),
        Problem(ProblemKind.HEADERS, "no headers", "apt-get install -y h"),
    ]
    result = call(capsys, "nvidia_driver_preflight", **asked)
    assert (result["code"], result["reason"], result["next"]) == (
        "refused",
        "GPU is older; no headers",
        "apt-get install -y h",
    )
    assert [each["kind"] for each in result["problems"]] == ["unfinished", "flavor", "headers"]
    assert call(capsys, "nvidia_driver_preflight", checks=["locks", "sources"], source="debian")["code"] == "ready"


def test_preflight_names_who_uses_apt(
    packages: list[Problem], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(_deadline: float) -> float:
        raise apt_lock.Locked("apt's locks were not free within 10 s", "/var/lib/dpkg/lock by pid 812 (apt-get)")

    monkeypatch.setattr(apt_lock, "wait", wait)
    result = call(capsys, "nvidia_driver_preflight", version="550.127.05", deadline=10)
    assert (result["code"], result["reason"]) == ("deadline", "apt is in use: /var/lib/dpkg/lock by pid 812 (apt-get)")


@pytest.fixture
def state(record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the host has: A, installed, held and loaded."""
    packages = {"libcuda1": {"version": "550.90.07-1", "hold": True, "broken": False}}
    state = {"packages": packages, "package_version": A["version"], "loaded_version": A["version"], "nvswitches": 0, "fabric": {"switch_managers": 0, "spans_hosts": False, "domain": "5f3e.1"},
             "fabric_manager": None, "dpkg_interrupted": False}  # fmt: skip
    monkeypatch.setattr(driver_state, "driver_state", lambda **_how: state)
    monkeypatch.setattr(driver_install, "PREFERENCES", tmp_path / "driver.pref")
    driver_install.PREFERENCES.write_text("pins of A\n")
    records.write(record, {"verified": A, "change": None, "roll": None})
    return state


def test_a_host_knows_what_to_go_back_to_before_anything_can_fail(
    record: Path, state: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The repository is gone when the wave installs: nothing was changed, and the host has to serve again."""
    repository = "file:///nowhere"
    failed = call(capsys, "nvidia_driver_packages", **{**B, "source": "mirror"}, repository_url=repository)
    assert "cannot be read" in failed["msg"]
    result = call(capsys, "nvidia_driver_change", state="restorable")
    assert (result["restore"], result["undo"]) == (A, {})
    assert result["record"]["change"]["before"] == {
        "packages": {"libcuda1": "550.90.07-1"},
        "preferences": "pins of A\n",
        "nvlink_domain": "5f3e.1",
    }


def test_a_dry_run_begins_no_change(record: Path, state: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    before = record.read_text(encoding="utf-8")
    call(capsys, "nvidia_driver_packages", **B, repository_url="file:///nowhere", _ansible_check_mode=True)
    assert record.read_text(encoding="utf-8") == before


def test_what_is_kept_is_pinned_as_before_and_can_be_accepted(
    record: Path, state: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_install, "run_command", lambda *_what: CommandResult(0, QUERIED))
    call(capsys, "nvidia_driver_packages", **B, repository_url="file:///nowhere")
    driver_install.PREFERENCES.write_text("pins of B\n")
    assert call(capsys, "nvidia_driver_change", state="restorable")["undo"] == {
        "hold": "pinned otherwise than before the change"
    }
    assert call(capsys, "nvidia_driver_packages", state="kept", **A, _ansible_check_mode=True)["changed"] is True
    assert driver_install.PREFERENCES.read_text() == "pins of B\n"
    assert call(capsys, "nvidia_driver_packages", state="kept", **A)["changed"] is True
    assert driver_install.PREFERENCES.read_text() == "pins of A\n"
    assert call(capsys, "nvidia_driver_packages", state="kept", **A)["changed"] is False
    monkeypatch.setattr(driver_state, "loaded_version", lambda *_root: A["version"])
    accepted = call(capsys, "nvidia_driver_change", state="accepted", **A)
    assert (accepted["record"]["verified"], accepted["record"]["change"]) == (A, None)
