"""The inventory as our actions read it, and what they ask of hosts."""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.playbook.play_context import PlayContext

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals, cluster, fleet, heads

ACTIONS = (
    "fetch_evidence", "host_setup", "packet_filter", "plan", "record_inputs", "rollout_lock", "rollout_request",
    "scrape_targets", "status",
)  # fmt: skip
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}


def host(number: int, role: str, **own: Any) -> dict[str, Any]:
    return {"gpu_host_address": f"10.0.0.{number}", "ray_node_role": role, **own}


REPLICAS = {
    "replica_b": {"hosts": {"b1": host(3, "head", vllm_server_port=9000)}},
    "replica_a": {"hosts": {"a2": host(2, "worker"), "a1": host(1, "head")}},
}
GROUPS = {
    "children": {
        "lockstep": {
            "children": REPLICAS,
            "vars": {"gpu_host_interface": "eth0", "gpu_host_gpus": 8, "vllm_server_model": "m", **LOCAL},
        }
    }
}


class Heads(heads.HeadsAction):
    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        return super().run(tmp, task_vars)


@pytest.fixture
def action(read_inventory: Callable[[dict[str, Any]], Any]) -> tuple[Heads, dict[str, Any]]:
    return acting(read_inventory(GROUPS))


def acting(inventory: Any) -> tuple[Heads, dict[str, Any]]:
    made = Heads.__new__(Heads)
    made._loader, made._templar = inventory.loader, inventory.templar
    made._play_context, made._task = PlayContext(), types.SimpleNamespace(become=False)
    return made, inventory.task_vars


@pytest.mark.parametrize("name", ACTIONS)
def test_every_action_refuses_an_unsupported_ansible_core_first(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ansible_internals, "unsupported", lambda: Stop("ansible-core 9 is not supported", "x"))
    module = importlib.import_module(f"ansible_collections.lockstep.vllm.plugins.action.{name}")
    with pytest.raises(AnsibleActionFail, match="ansible-core 9 is not supported"):
        module.ActionModule.__new__(module.ActionModule).run(None, {})


def test_the_cluster_is_what_the_inventory_declares(action: tuple[Heads, dict[str, Any]]) -> None:
    read = action[0].cluster(action[1])
    assert read.topology.problems == ()
    assert [(replica.name, replica.head, replica.hosts) for replica in read.topology.replicas] == [
        ("replica_b", "b1", ("b1",)),
        ("replica_a", "a1", ("a1", "a2")),
    ]
    assert read.wanted["b1"].settings["vllm_server_port"] == 9000
    assert read.wanted["a1"].settings["vllm_server_port"] == 8000
    assert read.routers == ()


@pytest.mark.parametrize(
    ("hosts", "replicas", "asked"),
    [
        (["a2"], ["replica_a"], {"a1", "a2"}),
        (["b1", "a1"], ["replica_b", "replica_a"], {"a1", "a2", "b1"}),
        (["localhost"], ["replica_b", "replica_a"], {"a1", "a2", "b1"}),
    ],
)
def test_what_some_hosts_are_a_part_of(
    action: tuple[Heads, dict[str, Any]], hosts: list[str], replicas: list[str], asked: set[str]
) -> None:
    found = action[0].cluster(action[1]).of(hosts)
    assert [replica.name for replica in found.topology.replicas] == replicas
    assert set(found.wanted) == asked


def test_only_one_host_s_settings_are_read_with_variables_over_its_own(action: tuple[Heads, dict[str, Any]]) -> None:
    read = action[0].cluster(action[1], only="b1", over={"vllm_server_port": 9100})
    assert {name: wanted.settings["vllm_server_port"] for name, wanted in read.wanted.items()} == {"b1": 9100}


def test_heads_are_sorted_whatever_the_inventory_s_order(action: tuple[Heads, dict[str, Any]]) -> None:
    assert action[0].heads(action[1]) == ["a1", "b1"]
    assert action[0].heads(action[1], without=["a1"]) == ["b1"]
    with pytest.raises(AnsibleActionFail, match=r"without: a2, z9 is not the head .* these are: a1, b1") as failed:
        action[0].heads(action[1], without=["z9", "a2"])
    assert "next" not in failed.value.result


def test_every_host_is_probed_over_its_own_connection(action: tuple[Heads, dict[str, Any]]) -> None:
    made, task_vars = action
    found = made.probe(made.cluster(task_vars), task_vars)
    assert {name: (answer.error, answer.reachable) for name, answer in found.items()} == dict.fromkeys(
        ("a1", "a2", "b1"), (None, True)
    )
    assert found["a1"].value["fingerprint_digest"]


def test_a_program_runs_on_the_hosts_that_are_named(action: tuple[Heads, dict[str, Any]]) -> None:
    made, task_vars = action
    text = fleet.program("rollout.lock", "apply", {"do": "no such thing"})
    answers = made.run_on(["b1"], text, task_vars)
    assert list(answers) == ["b1"]
    assert answers["b1"].error


def test_cluster_action_is_a_base_only() -> None:
    assert cluster.ClusterAction.BYPASS_HOST_LOOP


def test_hosts_are_asked_about_the_model_of_their_head(read_inventory: Callable[[dict[str, Any]], Any]) -> None:
    def asked(**variables: Any) -> set[Any]:
        made, task_vars = acting(read_inventory({"children": {"lockstep": {"children": REPLICAS, "vars": variables}}}))
        read = made.cluster(
            task_vars, declared=made.declared(task_vars)
        )  # as a plan does, which refuses what is missing
        return {cluster._questions(read, host, wanted)["model"] for host, wanted in read.wanted.items()}

    common = {"gpu_host_interface": "eth0"}
    assert asked(**common, vllm_server_model="/srv/m/") == {"/srv/m"}
    hub = "/var/lib/lockstep/engine/.cache/huggingface/hub/models--owner--m"
    assert asked(**common, vllm_server_model="owner/m") == {hub}  # is there room for it?
    assert asked(**common, vllm_server_model="s3://owner/m") == {None}
    assert asked(**common, vllm_server_served_model_name="m") == {None}  # its default is made of the model
    offline = {"HF_HUB_OFFLINE": 1, "HF_HOME": "/srv/hf"}
    assert asked(**common, vllm_server_model="owner/m", vllm_server_environment=offline) == {
        "/srv/hf/hub/models--owner--m"
    }


def test_a_host_may_be_in_a_replica_and_a_router(read_inventory: Callable[[dict[str, Any]], Any]) -> None:
    groups = {"children": {**GROUPS["children"], "router": {"hosts": {"b1": {}, "r1": {}}}}}
    made, task_vars = acting(read_inventory(groups))
    read = made.cluster(task_vars)
    both = read.wanted["b1"]
    assert {"vllm_haproxy", "vllm_server", "gpu_host"} <= set(both.inputs)
    assert (both.settings["vllm_server_port"], both.settings["vllm_haproxy_api_port"]) == (9000, 8080)
    assert both.engine is not None
    assert {8080, 8404, 9000, 6379} <= set(cluster._questions(read, "b1", both)["ports"])
    assert cluster._questions(read, "r1", read.wanted["r1"]) == {"ports": [8080, 8404]}


def test_hosts_whose_names_mean_no_address(
    read_inventory: Callable[[dict[str, Any]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = {"a1": {"ansible_host": "192.0.2.1"}, "a2": {}, "b1": {"ansible_host": "b1.example"}}
    made, task_vars = acting(read_inventory({"hosts": hosts}))
    monkeypatch.setattr(fleet, "unresolved", lambda names: set(names) - {"192.0.2.1"})
    assert made.unresolved(["a1", "a2", "b1"], task_vars) == [("a2", "a2"), ("b1", "b1.example")]


def test_what_a_router_should_have_is_the_inventory_s_replicas_or_what_is_set_by_hand(
    read_inventory: Callable[[dict[str, Any]], Any],
) -> None:
    by_hand = [{"name": "other", "address": "10.0.9.1"}]
    hosts = {"r1": {}, "r2": {"vllm_haproxy_replicas": by_hand}}
    made, task_vars = acting(read_inventory({"children": {**GROUPS["children"], "router": {"hosts": hosts}}}))
    seen = {"servers": {name: {"address": "10.0.0.3:9000", "up": True} for name in ("replica_b", "other")}}
    answers = {router: fleet.Answer(value={"router": seen}) for router in hosts} | {"b1": fleet.Answer(error="away")}
    found = made.cluster(task_vars).unexpected(answers)
    assert [(each.seen_on, each.name, each.next.split("/")[-1]) for each in found] == [
        ("r1", "other", "remove.yml --limit other"),
        ("r2", "replica_b", "ansible-playbook site.yml"),  # a group of the inventory: no router's word removes it
        ("r2", "other", "ansible-playbook site.yml"),
    ]


@pytest.mark.parametrize("asked", [False, True])
def test_hosts_of_no_replica_are_asked_only_on_request(
    asked: bool, read_inventory: Callable[[dict[str, Any]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("ansible_collections.lockstep.vllm.plugins.action.status")
    others = {"spare1": LOCAL, "gone1": {**LOCAL, "ansible_python_interpreter": "/nonexistent"}}
    inventory = read_inventory({**GROUPS, "hosts": others})
    made, shown = module.ActionModule.__new__(module.ActionModule), []
    made._loader, made._templar, made._play_context = inventory.loader, inventory.templar, PlayContext()
    made._task = types.SimpleNamespace(become=False, args={"others": asked}, check_mode=False, async_val=0)
    made._connection = types.SimpleNamespace(_shell=types.SimpleNamespace(tmpdir=None))
    monkeypatch.setattr(module.Display, "display", lambda _self, text, **_other: shown.append(text))
    status = made.run(None, {**inventory.task_vars, "ansible_play_hosts_all": ["a1", "a2", "b1"]})["status"]
    assert (status["unexpected"], status["unanswered"]) == ([], ["gone1"] if asked else [])
    assert ("in no replica, and no answer: gone1" in shown[0]) is asked


def test_what_prometheus_scrapes(read_inventory: Callable[[dict[str, Any]], Any]) -> None:
    module = importlib.import_module("ansible_collections.lockstep.vllm.plugins.action.scrape_targets")
    hosts = {"r1": {"ansible_host": "10.0.0.5", "vllm_haproxy_metrics_clients": ["10.0.9.4"]}, "r2": {}}
    made, task_vars = acting(read_inventory({"children": {**GROUPS["children"], "router": {"hosts": hosts}}}))
    assert module.targets(made.cluster(task_vars), {"r1": "10.0.0.5", "r2": "10.0.0.6"}, 9100) == {
        "hosts": [{"targets": ["10.0.0.3:9100", "10.0.0.1:9100", "10.0.0.2:9100"]}],
        "replicas": [
            {"targets": ["10.0.0.3:9000"], "labels": {"replica": "replica_b"}},
            {"targets": ["10.0.0.1:8000"], "labels": {"replica": "replica_a"}},
        ],
        "routers": [{"targets": ["10.0.0.5:8405"], "labels": {"router": "r1"}}],
    }
