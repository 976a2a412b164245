"""The module on real files: what it returns, in check mode too, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import configured
from ansible_collections.lockstep.vllm.plugins.module_utils.host import previous_settings as previous
from ansible_collections.lockstep.vllm.plugins.modules import previous_settings

RAY = "/etc/lockstep/ray.json"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> previous.Place:
    """A host on which Ray was configured, and where the module finds it."""
    place = previous.Place(tmp_path, lambda *_: CommandResult(0, "Id=lockstep-ray.service\nUnitFileState=enabled\n"))
    monkeypatch.setattr(previous, "Place", lambda: place)
    monkeypatch.setattr(records, "ENGINE_CONFIG", tmp_path / "engine.json")
    place.at("/etc/lockstep").mkdir(parents=True)
    place.at(RAY).write_text('{"ports": {"gcs": 6379}, "cpus": 4}')
    records.write(place.manifest("ray_node"), {"role": "ray_node", "inputs": "old", "files": {}})
    return place


def run(capsys: pytest.CaptureFixture[str], check: bool = False, **arguments: Any) -> dict[str, Any]:
    with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
        previous_settings.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_kept_restored_and_accepted(host: previous.Place, capsys: pytest.CaptureFixture[str]) -> None:
    kept = run(capsys, state="kept", run="r1", served=True)
    assert (kept["changed"], kept["roles"]) == (True, ["ray_node"])
    assert run(capsys, state="kept", run="r2", served=True)["changed"] is False
    host.at(RAY).write_text('{"ports": {"gcs": 7000}, "cpus": 8}')
    foreseen = run(capsys, check=True, state="restored")
    assert json.loads(host.at(RAY).read_text())["cpus"] == 8, "check mode restored it"
    back = run(capsys, state="restored")
    assert back == foreseen
    assert (back["changed"], back["restored"], back["files"]) == (True, "Ray (cpus, ports.gcs)", [RAY])
    assert back["lockstep_event"] == {"event": "note", "text": "rolled back: Ray (cpus, ports.gcs)"}
    assert back["serving_deadline"] is None
    assert json.loads(host.at(RAY).read_text()) == {"ports": {"gcs": 6379}, "cpus": 4}
    assert run(capsys, state="accepted")["changed"] is True
    assert run(capsys, state="accepted")["changed"] is False
    again = run(capsys, state="restored")
    assert (again["changed"], again["restored"]) == (False, "")
    assert "lockstep_event" not in again


def test_check_mode_writes_nothing(host: previous.Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, check=True, state="kept", run="r1", served=True)["changed"] is True
    assert run(capsys, check=True, state="accepted")["changed"] is True
    assert [path.name for path in host.at("/var/lib/lockstep").iterdir()] == ["manifest"]


def test_a_damaged_record_fails_with_its_name(host: previous.Place, capsys: pytest.CaptureFixture[str]) -> None:
    host.record.parent.mkdir(parents=True)
    host.record.write_text("{")
    for state in ("kept", "restored"):
        result = run(capsys, state=state, run="r1", served=True)
        assert result["failed"] is True
        assert "previous/record.json: is not JSON" in result["msg"]
        assert result["next"]


def test_the_engine_s_own_settings_give_its_deadline(
    host: previous.Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configured, "serving_deadline", lambda: 4200.0)
    assert run(capsys, state="restored")["serving_deadline"] == 4200.0
