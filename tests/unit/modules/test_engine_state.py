"""The module over a record and a stand-in for systemctl: reading, draining, waiting, and why a wait ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args

from ansible_collections.lockstep.vllm.plugins.module_utils.admission import condition
from ansible_collections.lockstep.vllm.plugins.module_utils.core import systemd
from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import state as states
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.record import EngineState, Finding
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.states import Phase
from ansible_collections.lockstep.vllm.plugins.modules import engine_state


class Host:
    """A head: its record, its unit."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.record, self.drain = root / "engine.json", root / "drain.json"
        self.log = root / "engine.log"
        self.unit = "ActiveState=active\nMainPID=7\nResult=success\n"
        self._capsys = capsys
        monkeypatch.setattr(states, "DRAIN", self.drain)
        monkeypatch.setattr(states, "LOG", self.log)
        record, read = self.record, states.read
        monkeypatch.setattr(states, "read", lambda: read(record))
        monkeypatch.setattr(systemd, "show", self.show)

    def show(self, units: list[str], properties: tuple[str, ...]) -> dict[str, systemd.Properties]:
        """As systemctl shows them, in its own order."""
        assert set(properties) == {"ActiveState", "MainPID", "Result"}
        return systemd.parse_show(f"Id={units[0]}\n{self.unit}")

    def reports(self, phase: Any, **facts: Any) -> None:
        record = as_json(EngineState(Phase(phase), "why", pid=7, **facts))
        self.record.write_text(json.dumps(record), encoding="utf-8")

    def run(self, **arguments: Any) -> dict[str, Any]:
        with patch_module_args(arguments), pytest.raises(SystemExit):
            engine_state.main()
        result: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return result


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Host:
    return Host(tmp_path, monkeypatch, capsys)


def test_reading_changes_nothing(host: Host) -> None:
    host.reports("serving", ready=True)
    result = host.run()
    assert (result["engine"]["phase"], result["unit"], result["changed"]) == ("serving", "active", False)


def test_a_drain_leaves_a_request_and_waits(host: Host) -> None:
    host.reports("serving", ready=True)
    result = host.run(state="drained", reason="wave 2", deadline=0.6)
    assert "the engine is not drained (deadline of 1 s): serving: why" in result["msg"]
    assert json.loads(host.drain.read_text(encoding="utf-8"))["reason"] == "wave 2"
    host.reports("drained")
    result = host.run(state="drained", reason="wave 2")
    assert (result["changed"], "failed" in result) == (False, False)


def test_serving_withdraws_the_request(host: Host) -> None:
    host.reports("serving", ready=True)
    host.drain.write_text("{}", encoding="utf-8")
    assert host.run(state="serving")["changed"] is True
    assert not host.drain.exists()


def test_findings_of_the_log_are_warnings_once_it_serves(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = (
        Finding("x", "warning", "The kernel is slow.", "Tune it.", "s", "l", 1),
        Finding("y", "info", "All is as ever.", "Nothing.", "s", "l", 1),
    )
    host.reports("serving", ready=True, findings=findings)
    warned: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _self, text: warned.append(text))
    host.run(state="serving")
    assert warned == ["vLLM's log: The kernel is slow. Tune it."]


def test_check_mode_leaves_no_request(host: Host) -> None:
    host.reports("serving", ready=True)
    assert host.run(state="drained", _ansible_check_mode=True)["changed"] is True
    assert not host.drain.exists()


def test_an_engine_that_died_while_starting_ends_the_wait_with_its_reason(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = iter([lambda: host.reports("starting")])

    def sample(units: list[str], properties: tuple[str, ...]) -> dict[str, systemd.Properties]:
        died = {"failures": 1, "last_failure": "ValueError: no such model", "evidence": ("/e/stacks.txt",)}
        next(samples, lambda: host.reports("backoff", **died))()
        return host.show(units, properties)

    monkeypatch.setattr(systemd, "show", sample)
    host.log.touch()
    result = host.run(state="serving", deadline=60)
    assert result["failed"] is True
    assert result["evidence"] == ["/e/stacks.txt", str(host.log)]
    assert "the engine is not serving: ValueError: no such model. Next: journalctl" in result["msg"]


def test_a_condition_that_refused_is_asked_why(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.unit = "ActiveState=inactive\nMainPID=0\nResult=exec-condition\n"
    monkeypatch.setattr(
        condition, "decide_here", lambda kind: condition.Decision(False, f"no {kind} stamp", "site.yml")
    )
    host.log.touch()  # of an engine that ran before
    result = host.run(state="serving", deadline=60)
    assert result["msg"] == "the engine is not serving: no replica stamp. Next: site.yml"
    assert result["next"] == "site.yml"
    assert result["evidence"] == []


def test_a_damaged_record_is_reported(host: Host) -> None:
    host.record.write_text("{", encoding="utf-8")
    result = host.run()
    assert "is not JSON" in result["msg"]
    assert result["next"] == "systemctl restart lockstep-vllm.service"


def test_a_systemctl_that_does_not_answer_is_reported(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: Any) -> None:
        raise systemd.SystemctlError("systemctl show: no answer within 10 s")

    monkeypatch.setattr(systemd, "show", silent)
    assert "no answer within 10 s" in host.run(state="serving")["msg"]
