"""The variables of a host as Ansible resolves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from ansible_collections.lockstep.vllm.plugins.module_utils.engine import config as engine_config
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import settings

T = trust_as_template
DEFAULT: Mapping[str, Any] = {
    "gpus": 8,
    "model": T("{{ gpu_model | default(none) }}"),
    "address": T("{{ ansible_host | default(inventory_hostname) }}"),
    "packages": [T("{{ python }}-dev"), "gcc"],
    "python": "python3",
    "name": T("{{ model }}"),
    "broken": T("{{ python"),
}
HOST: Mapping[str, Any] = {"inventory_hostname": "a1", "ansible_host": "10.0.0.1"}


def resolve(*names: str, **own: Any) -> dict[str, Any]:
    return settings.resolve(Templar(loader=DataLoader()), {**HOST, **own}, DEFAULT, names)


@pytest.mark.parametrize(
    ("name", "own", "value"),
    [
        pytest.param("gpus", {}, 8, id="a default"),
        pytest.param("gpus", {"gpus": 4}, 4, id="the host's own over the default"),
        pytest.param("model", {}, None, id="a default that is a template"),
        pytest.param("name", {"gpu_model": "H100"}, "H100", id="a default made of another default"),
        pytest.param("packages", {"python": T("{{ 'py' ~ gpus }}")}, ["py8-dev", "gcc"], id="templates in a container"),
        pytest.param("address", {}, "10.0.0.1", id="what the inventory sets for the host"),
        pytest.param("address", {"ansible_host": "10.0.0.2"}, "10.0.0.2", id="of another host"),
        pytest.param("gpus", {"gpus": "{{ python }}"}, "{{ python }}", id="untrusted text stays as it is"),
    ],
)
def test_resolve(name: str, own: dict[str, Any], value: object) -> None:
    assert resolve(name, **own) == {name: value}


def test_unset_names_are_left_out() -> None:
    assert resolve("no_such_variable", "gpus") == {"gpus": 8}


def test_a_broken_template_fails_only_where_it_is_asked_for() -> None:
    assert resolve("python") == {"python": "python3"}
    with pytest.raises(AnsibleError):
        resolve("broken")


def test_one_host_s_value_is_never_another_s() -> None:
    templar = Templar(loader=DataLoader())
    values = [
        settings.resolve(templar, {"inventory_hostname": "x", **own}, DEFAULT, ["model", "name"])["name"]
        for own in ({}, {"gpu_model": "H100"}, {"gpu_model": T("{{ python }}")}, {"model": "B200"}, {})
    ]
    assert values == [None, "H100", "python3", "B200", None]


def test_the_roles_defaults_resolve(read_inventory: Callable[[dict[str, Any]], Any]) -> None:
    inventory = read_inventory({"hosts": {"a1": {"vllm_server_model": "m"}}})
    raw = inventory.hostvars.raw_get("a1")
    names = ["vllm_server_model", "vllm_server_served_model_name", "vllm_server_port"]
    found = settings.resolve(inventory.templar, raw, settings.defaults(inventory.loader), names)
    assert (found["vllm_server_served_model_name"], found["vllm_server_port"]) == ("m", 8000)


def test_connection_variables_are_templated_and_nothing_else_is_among_them(
    read_inventory: Callable[[dict[str, Any]], Any],
) -> None:
    host = {"ansible_host": "{{ net }}.1", "net": "10.0.0", "ansible_become": False, "gpu_host_gpus": 8}
    inventory = read_inventory({"hosts": {"a1": host}})
    assert settings.connection(inventory.templar, inventory.hostvars.raw_get("a1")).items() >= {
        ("ansible_host", "10.0.0.1"),
        ("ansible_become", False),
    }
    assert "gpu_host_gpus" not in settings.connection(inventory.templar, inventory.hostvars.raw_get("a1"))


@pytest.mark.parametrize("name", settings.SHIPPED_LOCKS)
def test_a_lock_that_comes_with_lockstep(name: str) -> None:
    found = settings.lock(name)
    assert found.problem is None
    assert found.promises["torch"]


def test_the_shipped_locks_are_those_of_the_role() -> None:
    folder = settings.ROOT / "roles/serving_runtime/files/locks"
    assert sorted(path.stem for path in folder.glob("*.txt")) == sorted(settings.SHIPPED_LOCKS)


def test_a_lock_of_one_s_own(tmp_path: Path) -> None:
    own, binary = tmp_path / "own.txt", tmp_path / "binary"
    own.write_text("vllm==0.32.0\n")
    binary.write_bytes(b"\xff\xfe")
    assert settings.lock(str(own)).promises["vllm"] == "0.32.0"
    for name, part in (
        (str(tmp_path / "nothing"), "No such file"),
        (str(tmp_path), "Is a directory"),
        (str(binary), "not UTF-8"),
        ("own.txt", "is 'own.txt': give cuda or cpu, or the absolute path"),
        (None, "is None"),
    ):
        found = settings.lock(name)
        assert found.promises == {}
        assert part in str(found.problem)


def test_the_engine_record_is_what_the_role_writes() -> None:
    loader = DataLoader()
    defaults = loader.load_from_file(
        str(settings.ROOT / "roles/vllm_server/defaults/main.yml"), trusted_as_template=True
    )
    own = loader.load_from_file(str(settings.ROOT / "roles/vllm_server/vars/main.yml"), trusted_as_template=True)
    given = {
        "vllm_server_model": "/srv/m",
        "vllm_server_api_key": "secret",
        "vllm_server_layouts": [{"name": "small", "tensor_parallel_size": 4, "args": {"max-model-len": 64}}],
        "vllm_server_port": T("{{ 8000 + 5 }}"),
    }
    by_role = Templar(loader=loader, variables={**defaults, **own, **given}).template(own["__vllm_server_engine"])
    mine = settings.resolve(
        Templar(loader=loader), given, settings.defaults(loader), settings.public_variables("vllm_server")
    )
    record = settings.engine_record(Templar(loader=loader), loader, mine)
    assert record == by_role
    assert record["port"] == 8005
    assert engine_config.parse(record).layouts[0].gpus == 4
    other = settings.engine_record(Templar(loader=loader), loader, {**mine, "vllm_server_port": 8006})
    assert (other["port"], record["port"]) == (8006, 8005)
