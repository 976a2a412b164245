"""Where the routers' requests come from, as the inventory says."""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import routers

# The one that the tests of this folder share.
base = importlib.import_module("tests.unit.plugin_utils.controller.test_cluster")


def inventory(**of_routers: dict[str, Any]) -> dict[str, Any]:
    return {"children": {**base.GROUPS["children"], "router": {"hosts": of_routers}}}


def declared(read_inventory: Callable[[dict[str, Any]], Any], **of_routers: dict[str, Any]) -> dict[str, str]:
    read = read_inventory(inventory(**of_routers))
    return routers.declared_addresses(read.templar, read.task_vars)


def test_the_most_particular_address_counts(read_inventory: Callable[[dict[str, Any]], Any]) -> None:
    found = declared(
        read_inventory,
        r1={"ansible_host": "10.20.0.5", "vllm_haproxy_address": "{{ '10.30.0.' ~ 5 }}"},
        r2={"ansible_host": "10.20.0.6"},
        r3={},
    )
    assert found == {"r1": "10.30.0.5", "r2": "10.20.0.6", "r3": "r3"}


def test_without_routers_there_are_none(read_inventory: Callable[[dict[str, Any]], Any]) -> None:
    read = read_inventory(base.GROUPS)
    assert routers.declared_addresses(read.templar, read.task_vars) == {}


def test_names_are_looked_up_and_a_name_that_means_nothing_is_refused() -> None:
    assert routers.resolved({"r1": "10.0.0.5", "r2": "10.0.0.5", "r3": "fd00::5"}) == ["10.0.0.5", "fd00::5"]
    assert "127.0.0.1" in routers.resolved({"r1": "localhost"})
    with pytest.raises(
        AnsibleActionFail, match=r"r1: nowhere.invalid has no address here .* set vllm_haproxy_address of r1"
    ):
        routers.resolved({"r1": "nowhere.invalid"})


def test_another_router_makes_the_hosts_due_and_nothing_that_disturbs(
    read_inventory: Callable[[dict[str, Any]], Any],
) -> None:
    """Their packet filters have to let it in; Ray and the engine have nothing to do with it."""

    def inputs(**of_routers: dict[str, Any]) -> dict[str, str]:
        read = read_inventory(inventory(**of_routers))
        made = base.Heads.__new__(base.Heads)
        made._loader, made._templar = read.loader, read.templar
        made._task = types.SimpleNamespace(become=False)
        found: dict[str, str] = dict(made.cluster(read.task_vars).wanted["a1"].inputs)
        return found

    one, two = inputs(r1={"ansible_host": "10.20.0.5"}), inputs(r1={"ansible_host": "10.20.0.6"})
    assert {role for role, digest in one.items() if two[role] != digest} == {"gpu_host"}
