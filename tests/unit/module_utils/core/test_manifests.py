"""A digest changes with everything that decides what a role does, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import manifests
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import settings


def test_digest_depends_on_values_not_on_their_order() -> None:
    base = manifests.digest("f", {"a": 1, "b": [1]}, {"head": "a1"})
    assert manifests.digest("f", {"b": [1], "a": 1}, {"head": "a1"}) == base
    assert manifests.digest("g", {"a": 1, "b": [1]}, {"head": "a1"}) != base
    assert manifests.digest("f", {"a": 2, "b": [1]}, {"head": "a1"}) != base
    assert manifests.digest("f", {"a": 1, "b": [1]}, {"head": "a2"}) != base


@pytest.mark.parametrize(
    ("files", "variables", "applied", "same_code"),
    [("f", 1, True, True), ("f", 2, False, True), ("g", 1, False, False), ("g", 2, False, False)],
)
def test_it_is_known_who_changed_it(tmp_path: Path, files: str, variables: int, applied: bool, same_code: bool) -> None:
    """The operator, by a variable, or another version of Lockstep."""
    key = manifests.make_key(tmp_path / "key")
    record = manifests.manifest("r", manifests.digest("f", {"a": 1}, {}), [], key)
    now = manifests.digest(files, {"a": variables}, {})
    assert manifests.applied(record, now, key) is applied
    assert manifests.same_code(record, now, key) is same_code
    assert not manifests.same_code(record, None, key)
    earlier = manifests.parse({"role": "r", "inputs": record["inputs"], "files": {}})
    assert not manifests.same_code(earlier, now, key), "what an earlier version recorded"


def test_drift_is_a_changed_or_missing_file(tmp_path: Path) -> None:
    kept, edited, lost = (tmp_path / name for name in ("kept", "edited", "lost"))
    for path in (kept, edited, lost):
        path.write_text("as applied")
    key = manifests.make_key(tmp_path / "manifest" / "key")
    assert manifests.make_key(tmp_path / "manifest" / "key") == key != b""
    record = manifests.manifest("r", "digest", [str(path) for path in (kept, edited, lost)], key)
    assert manifests.drifted(record, key) == []
    assert manifests.applied(record, "digest", key)
    assert not manifests.applied(record, "another", key)
    assert not manifests.applied(record, None, key), "it is not wanted here"
    edited.write_text("by hand")
    lost.unlink()
    assert manifests.drifted(record, key) == [str(edited), str(lost)]
    (tmp_path / "manifest" / "key").unlink()
    lost_key = manifests.key(tmp_path / "manifest" / "key")
    assert not manifests.applied(record, "digest", lost_key), "a lost key knows nothing again"
    assert manifests.drifted(record, lost_key) == [str(edited), str(kept), str(lost)]


def test_only_what_decides_what_is_left_on_a_host_is_digested() -> None:
    specs = {
        "main": {"options": {"nvidia_driver_gpus": {}}},
        "install": {"options": {"nvidia_driver_version": {}, "nvidia_driver_apt_deadline": {}}},
        "load": {"options": {"nvidia_driver_reboot_deadline": {}}},
        "restore": {},
    }
    assert manifests.deciding(specs) == ["nvidia_driver_version"]
    assert manifests.deciding({"configure": {"options": {"ray_node_port": {}}}, "start": {}}) == ["ray_node_port"]


# Role model leaves no settings: a model's files have a manifest of their own.
@pytest.mark.parametrize("role", sorted({*settings.HOST_ROLES, *settings.ROUTER_ROLES} - {"model"}))
def test_every_role_has_something_that_decides(role: str) -> None:
    names = manifests.deciding(settings.argument_specs(role))
    assert names
    if role == "nvidia_driver":
        assert [name for name in names if "deadline" in name] == []


def test_no_name_is_left_out_that_is_not_there() -> None:
    known = {name for role in settings.HOST_ROLES for name in settings.public_variables(role)}
    assert known >= manifests.HOW_NOT_WHAT
