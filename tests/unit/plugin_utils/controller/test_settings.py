"""The variables of a host as Ansible resolves them, and which of them several hosts may share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import settings

T = trust_as_template
DEFAULT: Mapping[str, Any] = {
    "gpu_host_gpus": 8,
    "model": T("{{ gpu_host_gpu_model | default(none) }}"),
    "address": T("{{ ansible_host | default(inventory_hostname) }}"),
    "packages": [T("{{ python }}-dev"), "gcc", {T("{{ python }}"): 1}],
    "python": "python3",
    "name": T("{{ served }}"),
    "served": T("{{ model }}"),
    "looked_up": T("{{ lookup('env', 'HOME') }}"),
    "broken": T("{{ python"),
    "table": {"a": 1},
}
HOST: Mapping[str, Any] = {"inventory_hostname": "a1", "ansible_host": "10.0.0.1"}


def depends_on(name: str, **own: Any) -> str | None:
    return settings.depends_on(name, {**DEFAULT, **HOST, **own}, DEFAULT)


@pytest.mark.parametrize(
    ("name", "own", "other"),
    [
        pytest.param("gpu_host_gpus", {}, {"gpu_host_gpus": 4}, id="a plain value"),
        pytest.param("gpu_host_gpus", {"gpu_host_gpus": 1}, {"gpu_host_gpus": "1"}, id="a number and its text"),
        pytest.param("model", {}, {"gpu_host_gpu_model": "H100"}, id="a variable of a role that is unset, and set"),
        pytest.param("name", {}, {"gpu_host_gpu_model": "H100"}, id="what a default depends on by way of others"),
        pytest.param("packages", {}, {"python": "python3.11"}, id="a template within a container"),
        pytest.param("address", {}, {"ansible_host": "10.0.0.2"}, id="what the inventory says of the host"),
    ],
)
def test_hosts_that_differ_share_nothing(name: str, own: dict[str, Any], other: dict[str, Any]) -> None:
    assert depends_on(name, **own)
    assert depends_on(name, **other)
    assert depends_on(name, **own) != depends_on(name, **other)


@pytest.mark.parametrize("name", ["gpu_host_gpus", "model", "name", "packages", "table"])
def test_hosts_that_are_alike_in_what_matters_share_it(name: str) -> None:
    assert depends_on(name) == depends_on(name, inventory_hostname="b2", ansible_host="10.0.0.2") is not None


@pytest.mark.parametrize(
    ("name", "own"),
    [
        pytest.param("looked_up", {}, id="a default that calls a function"),
        pytest.param("broken", {}, id="no template at all"),
        pytest.param(
            "python", {"python": T("{{ hostvars[inventory_hostname].x }}")}, id="a template of the inventory's own"
        ),
        pytest.param(
            "packages", {"python": T("{{ 'py' ~ 3 }}")}, id="a default over a template of the inventory's own"
        ),
        pytest.param("model", {"gpu_host_gpu_model": ["H100"]}, id="a default over a container"),
        pytest.param("table", {"table": {"a": 1}}, id="a container of the inventory's own"),
    ],
)
def test_what_cannot_be_told_is_not_shared(name: str, own: dict[str, Any]) -> None:
    assert depends_on(name, **own) is None


def test_every_host_gets_what_ansible_itself_would_give_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever order hosts are resolved, and whatever is kept of those before."""
    monkeypatch.setattr(settings, "_SETTLED", {})
    names = sorted(set(DEFAULT) - {"broken"})
    templar = Templar(loader=DataLoader())
    hosts = [
        {**HOST},
        {"inventory_hostname": "a2"},
        {**HOST, "python": T("{{ 'python3.' ~ gpu_host_gpus }}")},
        {**HOST, "gpu_host_gpu_model": "H100", "gpu_host_gpus": 4},
        {**HOST, "gpu_host_gpu_model": T("{{ served }}"), "model": "B200"},
        {**HOST},
    ]
    for raw in hosts:
        scoped = templar.copy_with_new_env(available_variables={**DEFAULT, **raw})
        expected = {name: scoped.template({**DEFAULT, **raw}[name]) for name in names}
        assert settings.resolve(templar, raw, DEFAULT, names) == expected
    assert settings.resolve(templar, hosts[1], DEFAULT, ["address"]) == {"address": "a2"}
    assert settings.resolve(templar, HOST, {}, ["served"]) == {}
