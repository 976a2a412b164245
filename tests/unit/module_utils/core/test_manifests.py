"""A digest changes with everything that decides what a role does, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import manifests
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import settings


def test_tree_digest_sees_content_names_and_nothing_else(tmp_path: Path) -> None:
    role = tmp_path / "role"
    (role / "tasks").mkdir(parents=True)
    (role / "tasks" / "main.yml").write_text("a")
    first = manifests.tree_digest([role])
    (role / "README.md").write_text("text")
    (role / "__pycache__").mkdir()
    (role / "__pycache__" / "x.pyc").write_text("cache")
    assert manifests.tree_digest([role]) == first
    (role / "tasks" / "main.yml").write_text("b")
    second = manifests.tree_digest([role])
    assert second != first
    (role / "tasks" / "main.yml").rename(role / "tasks" / "other.yml")
    assert manifests.tree_digest([role]) not in (first, second)


def test_digest_depends_on_values_not_on_their_order() -> None:
    base = manifests.digest("f", {"a": 1, "b": [1]}, {"head": "a1"})
    assert manifests.digest("f", {"b": [1], "a": 1}, {"head": "a1"}) == base
    assert manifests.digest("g", {"a": 1, "b": [1]}, {"head": "a1"}) != base
    assert manifests.digest("f", {"a": 2, "b": [1]}, {"head": "a1"}) != base
    assert manifests.digest("f", {"a": 1, "b": [1]}, {"head": "a2"}) != base


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
