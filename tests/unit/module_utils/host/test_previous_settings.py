"""Settings kept, restored and let go of: real files below a folder; systemctl is a stand-in that remembers."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lockstep.vllm.plugins.module_utils.core import manifests, records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.host import previous_settings as previous
from ansible_collections.lockstep.vllm.plugins.module_utils.host.previous_settings import MANAGED, Place, SettingsError

ROOT = Path(__file__).parents[4]
OLD, NEW = "1a2b1a2b1a2b1a2b", "9f8e9f8e9f8e9f8e"
ENGINE, KEY, TOKEN = "/etc/lockstep/engine.json", "/etc/lockstep/vllm-api-key", "/etc/lockstep/ray-token"
RAY, SOCKET = "/etc/lockstep/ray.json", "lockstep-hoststatus.socket"
HOST_KEY = b"of this host alone"


class Systemctl:
    """What was asked of systemctl; units that start at boot."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.enabled = {
            "lockstep-ray.service",
            SOCKET,
            "lockstep-vllm.service",
        }

    def __call__(self, argv: Sequence[str], _deadline: float) -> CommandResult:
        _systemctl, verb, *rest = argv
        if verb == "show":
            units = [unit for unit in rest if not unit.startswith("-")]
            blocks = [f"Id={u}\nUnitFileState={'enabled' if u in self.enabled else 'disabled'}" for u in units]
            return CommandResult(0, "\n\n".join(blocks) + "\n")
        self.asked.append(" ".join([verb, *rest]))
        for unit in rest if verb in ("enable", "disable") else ():
            (self.enabled.add if verb == "enable" else self.enabled.discard)(unit)
        return CommandResult(0)


class Host:
    """A host whose roles were applied: its files hold what ``settle`` was given."""

    def __init__(self, root: Path) -> None:
        self.systemctl = Systemctl()
        self.place = Place(root, self.systemctl)
        for digest in (OLD, NEW):
            folder = self.place.runtime / digest
            folder.mkdir(parents=True)
            (folder / "lockstep.json").write_text("{}")
        self.apply("old", OLD, {"args": {"max_num_seqs": 8}, "model": "/m"})

    def apply(self, inputs: str, runtime: str, engine: dict[str, Any], key: bool = False) -> None:
        """What the three roles leave: every file with new content, in place of the old one, and the manifests."""
        for role, names in MANAGED.items():
            written = [name for name in names if key or name != KEY]
            for name in written:
                content = json.dumps(engine) if name == ENGINE else f"{name} of {inputs}\n"
                self.write(name, content, 0o400 if name in (KEY, TOKEN) else 0o644)
            files = [str(self.place.at(name)) for name in written]
            records.write(self.place.manifest(role), manifests.manifest(role, inputs, files, HOST_KEY))
        self.switch(runtime)

    def write(self, name: str, content: str, mode: int = 0o644) -> None:
        path = self.place.at(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name("scratch")
        scratch.write_text(content)
        scratch.chmod(mode)
        os.replace(scratch, path)

    def switch(self, runtime: str) -> None:
        previous.runtime_install.switch(self.place.runtime, runtime)

    def state(self) -> dict[str, tuple[str, int]]:
        """Every managed file and manifest with content and mode, and the environment in use."""
        names = [*(name for role in MANAGED.values() for name in role), *map(str, map(self.place.manifest, MANAGED))]
        paths = [self.place.at(name) if name.startswith(("/etc", "/opt")) else Path(name) for name in names]
        found = {str(path): (path.read_text(), path.stat().st_mode & 0o7777) for path in paths if path.exists()}
        return {**found, "current": (os.readlink(self.place.runtime / "current"), 0)}

    def keep(self, run: str = "r1", served: bool = True) -> bool:
        return previous.keep(run, served, self.place)[1]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_host_is_taken_back_to_all_that_it_had(host: Host) -> None:
    before = host.state()
    assert host.keep()
    host.apply("new", NEW, {"args": {"max_num_seqs": 9}, "model": "/other"}, key=True)
    host.systemctl.enabled.discard(SOCKET)
    change = previous.restore(host.place)
    assert host.state() == before
    assert not host.place.at(KEY).exists(), "a key that the previous settings do not have is left on the host"
    assert "serving environment 9f8e9f8e9f8e9f8e -> 1a2b1a2b1a2b1a2b" in str(change)
    assert "args.max_num_seqs" in str(change)
    assert "model" in str(change)
    assert "/other" not in str(change), "values may be secrets"
    assert host.systemctl.asked == [
        "daemon-reload",
        "enable lockstep-hoststatus.socket",
        "reset-failed lockstep-hoststatus.socket",
        "reset-failed lockstep-ray.service",
        "reset-failed lockstep-vllm.service",
        "restart lockstep-hoststatus.socket",
    ]
    assert previous.previous_settings.read(host.place.record), "it is kept until the host serves again"
    assert previous.accept(host.place)
    assert not host.place.record.parent.exists()


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True), (True, True), (False, False)])
def test_a_tunnel_is_as_it_was_before(host: Host, before: bool, after: bool) -> None:
    """It is stopped by the configuration that it was started by, so before the files are taken back."""
    unit = "wg-quick@lockstep0.service"
    for name, there in (("keep", before), ("restore", after)):
        (host.systemctl.enabled.add if there else host.systemctl.enabled.discard)(unit)
        if name == "keep":
            host.keep()
    previous.restore(host.place)
    asked = host.systemctl.asked
    assert (asked[0] == f"stop {unit}") is after
    assert (f"restart {unit}" in asked) is before
    assert ("try-reload-or-restart lockstep-filter.service" in asked) is (before or after)
    assert (unit in host.systemctl.enabled) is before


def test_nothing_of_the_kept_files_can_be_read_by_others(host: Host) -> None:
    host.keep()
    folder = host.place.record.parent
    assert folder.stat().st_mode & 0o777 == 0o700
    kept = previous.previous_settings.read(host.place.record)
    assert kept
    token = kept["files"][TOKEN]
    assert token
    assert (folder / token["copy"]).stat().st_mode & 0o7777 == token["mode"] == 0o400
    assert kept["files"][KEY] is None


def test_a_rerun_keeps_what_the_run_that_died_has_kept(host: Host) -> None:
    before = host.state()
    assert host.keep("r1")
    host.write(ENGINE, "{}")  # half changed, then the controller dies
    host.switch(NEW)
    assert not host.keep("r2", served=False)
    host.apply("newer", NEW, {"args": {}})
    previous.restore(host.place)
    assert host.state() == before
    kept = previous.previous_settings.read(host.place.record)
    assert kept
    assert kept["run"] == "r1"


@pytest.mark.parametrize("files", range(12))
def test_a_restoration_that_was_killed_is_finished_by_the_next(
    host: Host, files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = host.state()
    host.keep()
    host.apply("new", NEW, {"args": {}}, key=True)
    restore_file, done = previous._restore_file, []

    def killed(*arguments: Any) -> None:
        if len(done) == files:
            raise KeyboardInterrupt
        done.append(arguments)
        restore_file(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(previous, "_restore_file", killed)
        with pytest.raises(KeyboardInterrupt):
            previous.restore(host.place)
    host.systemctl.asked.clear()
    previous.restore(host.place)
    assert host.state() == before
    assert {"daemon-reload", "restart lockstep-hoststatus.socket"} <= set(host.systemctl.asked)


def test_a_full_disk_keeps_nothing_and_changes_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    before, fsync, synced = host.state(), os.fsync, []

    def full(handle: int) -> None:
        synced.append(handle)
        if len(synced) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SettingsError) as raised:
        host.keep()
    assert "cannot be kept, so none is changed" in raised.value.stop.cause
    assert raised.value.stop.next.startswith("df -h")
    state = host.place.at("/var/lib/lockstep")
    assert [path.name for path in state.iterdir()] == ["manifest"], "something is left of it"
    assert host.state() == before
    monkeypatch.setattr(os, "fsync", fsync)
    assert host.keep()


def test_what_a_killed_keep_left_is_not_taken_for_kept(host: Host) -> None:
    before = host.state()
    state = host.place.at("/var/lib/lockstep")
    (state / ".previous.abcd").mkdir()
    (state / "previous").mkdir()
    (state / "previous/0").write_text("half")
    assert host.keep()
    assert not (state / ".previous.abcd").exists()
    host.apply("new", NEW, {"args": {}})
    previous.restore(host.place)
    assert host.state() == before


@pytest.mark.parametrize(
    ("served", "accepted", "kept"),
    [
        pytest.param(True, None, sorted(MANAGED), id="it served"),
        pytest.param(False, None, [], id="it never served: nothing to go back to"),
        pytest.param(False, "old", sorted(MANAGED), id="down, with the settings that were accepted"),
        pytest.param(False, "older", [], id="down, with settings that were never accepted"),
    ],
)
def test_only_what_can_be_gone_back_to_is_kept(host: Host, served: bool, accepted: str | None, kept: list[str]) -> None:
    if accepted:
        verified = {role: manifests.manifest(role, accepted, (), HOST_KEY)["inputs"] for role in MANAGED}
        records.write(host.place.at(records.SETTINGS), {"verified": verified, "at": "t"})
    record, new = previous.keep("r1", served, host.place)
    assert (record["roles"] if record else []) == kept
    assert new is bool(kept)


def test_a_role_that_was_never_applied_is_left_as_it_is(host: Host) -> None:
    host.place.manifest("vllm_server").unlink()
    host.keep()
    host.apply("new", NEW, {"args": {"new": 1}})
    change = previous.restore(host.place)
    assert ENGINE not in change.files
    assert json.loads(host.place.at(ENGINE).read_text()) == {"args": {"new": 1}}
    assert "lockstep-vllm.service" not in " ".join(host.systemctl.asked)


def test_the_next_plan_sees_the_change_as_due_again(host: Host) -> None:
    host.keep()
    host.apply("new", NEW, {"args": {}})
    previous.restore(host.place)
    for role in MANAGED:
        stored = records.read(host.place.manifest(role))
        assert stored
        record = manifests.parse(stored)
        assert manifests.applied(record, "old", HOST_KEY)
        assert not manifests.applied(record, "new", HOST_KEY)
        assert manifests.drifted(record, HOST_KEY) == []


def test_accepted_settings_are_kept_again_when_the_replica_is_down(host: Host) -> None:
    assert not host.keep(served=False)
    assert previous.would_accept(host.place)
    assert previous.accept(host.place)
    assert not previous.accept(host.place)
    assert not previous.would_accept(host.place)
    assert previous.would_keep(False, host.place)
    assert host.keep(served=False)
    assert not previous.would_keep(False, host.place)


def test_an_environment_that_is_gone_is_no_success(host: Host) -> None:
    host.keep()
    host.switch(NEW)
    (host.place.runtime / OLD / "lockstep.json").unlink()
    with pytest.raises(SettingsError, match="is not there any more"):
        previous.restore(host.place)


def test_a_damaged_copy_is_not_restored(host: Host) -> None:
    host.keep()
    kept = previous.previous_settings.read(host.place.record)
    assert kept
    engine = kept["files"][ENGINE]
    assert engine
    (host.place.record.parent / engine["copy"]).write_text("{}")
    host.write(ENGINE, '{"new": 1}')
    with pytest.raises(SettingsError, match="is damaged"):
        previous.restore(host.place)
    assert json.loads(host.place.at(ENGINE).read_text()) == {"new": 1}


def test_systemd_that_does_not_follow_is_named(host: Host) -> None:
    host.keep()
    host.apply("new", NEW, {"args": {}})
    answer = Systemctl.__call__

    def refusing(argv: Sequence[str], deadline: float) -> CommandResult:
        return (
            CommandResult(1, stderr="bus gone\n") if "daemon-reload" in argv else answer(host.systemctl, argv, deadline)
        )

    with pytest.raises(SettingsError, match="systemctl daemon-reload: bus gone"):
        previous.restore(Place(host.place.root, refusing))


def test_a_lock_that_could_not_be_built_is_named(host: Host) -> None:
    host.keep()
    host.write("/opt/lockstep/share/serving_runtime.lock", "vllm==99\n")
    assert str(previous.restore(host.place)) == "serving environment (serving_runtime.lock)"


def test_another_environment_is_named_once_with_its_lock(host: Host) -> None:
    host.keep()
    host.write("/opt/lockstep/share/serving_runtime.lock", "vllm==0.33.0\n")
    host.switch(NEW)
    assert str(previous.restore(host.place)) == f"serving environment {NEW} -> {OLD}"


def test_nothing_kept_is_nothing_to_restore(host: Host) -> None:
    before = host.state()
    assert not previous.restore(host.place)
    assert host.state() == before
    assert host.systemctl.asked == []


def test_no_change_yet_is_no_difference(host: Host) -> None:
    assert not previous.difference(host.place)
    host.keep()
    assert not previous.difference(host.place)
    host.switch(NEW)
    assert previous.difference(host.place)


def test_a_large_file_is_kept_without_a_second_copy_and_survives_its_replacement(host: Host) -> None:
    uv = "/opt/lockstep/bin/uv"
    host.write(uv, "u" * (2 << 20), 0o755)
    host.keep()
    assert host.place.at(uv).stat().st_nlink == 2
    host.write(uv, "other", 0o755)
    previous.restore(host.place)
    assert host.place.at(uv).read_text() == "u" * (2 << 20)
    assert host.place.at(uv).stat().st_mode & 0o777 == 0o755


def test_the_files_are_those_that_the_roles_record() -> None:
    """By the roles' own texts: every path that record_inputs is given, and the key that is one of them only at times."""
    for role, names in MANAGED.items():
        variables = yaml.safe_load((ROOT / f"roles/{role}/vars/main.yml").read_text())
        verb = "install" if role == "serving_runtime" else "configure"
        text = (ROOT / f"roles/{role}/tasks/{verb}.yml").read_text()
        recorded = text[text.index("lockstep.vllm.record_inputs") :]
        units = [f"/etc/systemd/system/{unit}" for unit in variables.get("__ray_node_units", [])]
        of_tunnel = [str(variables.get(f"__ray_node_tunnel_{part}", "")) for part in ("files", "requirements")]
        written = " ".join([recorded, str(variables.get("__ray_node_files", "")), *of_tunnel])
        literal = set(re.findall(r"/(?:etc|opt)/[\w./@-]+", written)) - {"/etc/wireguard/lockstep0.key"}  # never copied
        named = [variables[name] for name in re.findall(r"__\w+", recorded) if str(variables.get(name)).startswith("/")]
        assert sorted({*literal, *named, *units}) == sorted(names), role
