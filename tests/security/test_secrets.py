"""What may be read by whom: no hash of a secret, no secret of an environment, and Ray's token cannot be turned off unseen."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.lockstep.vllm.plugins.module_utils.core import manifests, records
from ansible_collections.lockstep.vllm.plugins.module_utils.host import probe
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import refusals
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.needs import HostNeed
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.observed import HostState
from ansible_collections.lockstep.vllm.plugins.modules import record_inputs
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import journal

from .conftest import ROOT, as_user

TOKEN = "changeme"


@pytest.fixture
def host(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(records, "MANIFEST", place / "manifest")
    monkeypatch.setattr(records, "MANIFEST_KEY", place / "manifest/key")
    (place / "ray-token").write_text(TOKEN + "\n")
    (place / "ray-token").chmod(0o400)
    return place


def record(host: Path, inputs: str) -> None:
    with (
        patch_module_args({"role": "ray_node", "inputs": inputs, "files": [str(host / "ray-token")]}),
        pytest.raises(SystemExit),
    ):
        record_inputs.main()


def everything_readable(folder: Path) -> str:
    """What the user reads of a folder, by any name."""
    code = """
import os, sys
for top, _, names in os.walk(sys.argv[1]):
    for name in names:
        try:
            print(open(os.path.join(top, name)).read())
        except OSError:
            pass
"""
    return as_user(code, folder).stdout


def test_no_file_holds_a_secret_s_hash(host: Path) -> None:
    """A weak token is found by its hash at once: one guess after the other costs nothing."""
    inputs = manifests.digest("files", {"ray_node_token": TOKEN}, {})
    record(host, inputs)
    hashes = {hashlib.sha256(text.encode()).hexdigest() for text in (TOKEN, TOKEN + "\n")} | {inputs}
    written = "".join(path.read_text() for path in (host / "manifest").iterdir())
    assert not [found for found in hashes if found in written], "not even where root alone reads it"
    assert everything_readable(host).strip() == ""


def test_a_changed_secret_is_seen_all_the_same(host: Path) -> None:
    inputs = manifests.digest("files", {"ray_node_token": TOKEN}, {})
    record(host, inputs)
    asked: dict[str, Any] = {"inputs": {"ray_node": inputs}}
    assert probe.collect(asked)["manifest"] == {"ray_node": {"current": True, "same_code": True, "drifted": []}}  # type: ignore[arg-type]
    other = {"inputs": {"ray_node": manifests.digest("files", {"ray_node_token": "another"}, {})}}
    assert probe.collect(other)["manifest"]["ray_node"]["current"] is False  # type: ignore[arg-type, typeddict-item]
    (host / "ray-token").chmod(0o600)
    (host / "ray-token").write_text("by hand\n")
    drifted = probe.collect(asked)["manifest"]["ray_node"]["drifted"]  # type: ignore[arg-type, typeddict-item]
    assert drifted == [str(host / "ray-token")]


def test_two_hosts_of_one_token_keep_different_digests(host: Path) -> None:
    record(host, "inputs")
    first = json.loads((host / "manifest/ray_node.json").read_text())
    (host / "manifest/key").unlink()
    record(host, "inputs")
    second = json.loads((host / "manifest/ray_node.json").read_text())
    assert (first["inputs"], first["files"]) != (second["inputs"], second["files"])


@pytest.mark.parametrize(
    ("role", "name"), [("ray_node", "/etc/lockstep/ray.env"), ("vllm_server", "{{ __vllm_server_config }}")]
)
def test_files_that_may_hold_a_hub_s_token_are_not_everybody_s(role: str, name: str) -> None:
    tasks = yaml.safe_load((ROOT / "roles" / role / "tasks/configure.yml").read_text())
    (written,) = [
        module for task in tasks for module in task.values() if isinstance(module, dict) and module.get("dest") == name
    ]
    assert (written["owner"], written["group"], written["mode"]) == ("root", "lockstep", "0640")


def test_the_folder_above_ray_s_and_the_engine_s_is_not_everybody_s() -> None:
    """Ray makes its own folder, and all sessions in it, 0777."""
    tasks = yaml.safe_load((ROOT / "roles/gpu_host/tasks/_user.yml").read_text())
    (folders,) = [task["loop"] for task in tasks if task["name"] == "Create folders"]
    modes = {folder["path"]: (folder.get("group"), folder.get("mode")) for folder in folders}
    assert modes["/var/lib/lockstep"] == ("lockstep", "0750")


def test_no_folder_is_given_to_the_user_through_a_link() -> None:
    """He may have put one there where the folder above is his; Ansible follows links, and would give away what they lead to."""
    given = [
        module
        for path in (ROOT / "roles").glob("*/tasks/*.yml")
        for task in yaml.safe_load(path.read_text()) or []
        for name, module in task.items()
        if name == "ansible.builtin.file" and module.get("owner") == "lockstep"
    ]
    assert given
    assert all(module.get("follow") is False for module in given)


@pytest.mark.parametrize("unit", ["ray_node/templates/lockstep-ray", "vllm_server/templates/lockstep-vllm"])
def test_what_the_units_write_is_not_everybody_s(unit: str) -> None:
    text = (ROOT / f"roles/{unit}.service.j2").read_text()
    for line in ("UMask=0027", "RuntimeDirectoryMode=0750", "StateDirectoryMode=0750"):
        assert re.search(rf"^{line}$", text, re.MULTILINE), line


@pytest.mark.parametrize("name", ["RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_ray_s_token_is_not_turned_off_by_a_variable(name: str) -> None:
    settings = {"gpu_host_gpus": 1, "nvidia_driver_version": "1", "ray_node_environment": {name: "disabled"}}
    (stop,) = refusals.host_refusals("a1", settings, HostState(distribution="debian"), HostNeed("a1", {}))
    assert stop.where == "a1"
    assert stop.cause.startswith(f"ray_node_environment sets {name}")


def test_ray_s_environment_ends_with_what_is_not_the_operator_s() -> None:
    """systemd takes the last of two lines: a role that is applied with no plan before it."""
    template = (ROOT / "roles/ray_node/templates/ray.env.j2").read_text()
    values = {"ray_node_environment": {"RAY_AUTH_MODE": "disabled", "B": "b"}, "ansible_managed": ""}
    text = jinja2.Template(template, trim_blocks=True).render(**values)
    lines = [line.partition("=")[2] for line in text.splitlines() if line.startswith("RAY_AUTH_MODE=")]
    assert lines[-1] == "token"


def test_a_journal_is_its_operator_s(tmp_path: Path) -> None:
    written = journal.Journal(tmp_path, "run")
    written.close()
    assert written.path.stat().st_mode & 0o777 == 0o600


def test_the_status_socket_outlives_whoever_connects_too_often() -> None:
    text = (ROOT / "roles/ray_node/templates/lockstep-hoststatus.socket.j2").read_text()
    assert "TriggerLimitBurst=0" in text.splitlines()
