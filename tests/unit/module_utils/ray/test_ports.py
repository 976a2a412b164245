"""One list of ports: what the inventory has reaches the host's records, the network gate and the plan's check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import network as network_gate
from ansible_collections.lockstep.vllm.plugins.module_utils.ray import ports
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.ports import EnginePorts, RayPorts
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import topology
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.needs import Desired
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import cluster, settings

ROLES = Path(__file__).parents[4] / "roles"
REPLICA = topology.Replica("replica_a", "a1", ("a2",), {"a1": "10.0.0.11", "a2": "10.0.0.12"})
EVERYWHERE = (6380, 6381, 6382, 6383, 6384, 6385, 6386, 29698)


def role_value(role: str, name: str, **given: Any) -> Any:
    """A variable of a role, templated by Ansible over the role's defaults."""
    loader = DataLoader()
    variables: dict[str, Any] = {"vllm_server_model": "/m", "vllm_server_served_model_name": "tiny"}
    for part in ("defaults", "vars"):
        loaded = loader.load_from_file(str(ROLES / role / part / "main.yml"), trusted_as_template=True)
        variables.update(loaded)
    return Templar(loader, variables={**variables, **given}).template(variables[name])


def questions(host: str, **given: Any) -> list[int]:
    """The ports that the plan asks a host about, for an inventory with these variables."""
    loader = DataLoader()
    names = [name for role in ("ray_node", "vllm_server") for name in settings.public_variables(role)]
    given = {"vllm_server_model": "/m", **given}
    mine = settings.resolve(Templar(loader), given, settings.defaults(loader, ("ray_node", "vllm_server")), names)
    read = cluster.Cluster(topology.Topology((REPLICA,), ()), {}, ())
    asked: list[int] = cluster._questions(read, host, Desired(mine, {}))["ports"]
    return asked


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ports, "RAY_SETTINGS", tmp_path / "ray.json")
    monkeypatch.setattr(records, "ENGINE_CONFIG", tmp_path / "engine.json")
    return tmp_path


def test_gate_tries_the_ports_that_the_inventory_chose(etc: Path) -> None:
    engine = role_value("vllm_server", "__vllm_server_engine", vllm_server_port=9000, vllm_server_ready_port=9001)
    ray = role_value("ray_node", "__ray_node_settings", ray_node_port=7000, ray_node_ports={"metrics": 7001})
    (etc / "engine.json").write_text(json.dumps(engine))
    (etc / "ray.json").write_text(json.dumps(ray))
    assert network_gate.ports() == {
        "ports": (6380, 6381, 6382, 6384, 7001, 20000, 20999, 29697),
        "head_ports": (7000, 9000, 9001),
    }


def test_gate_tries_the_usual_ports_where_nothing_is_configured_yet(etc: Path) -> None:
    assert network_gate.ports()["head_ports"] == (6379, 8000, 8001)


def test_plan_asks_a_head_about_every_port_of_ours() -> None:
    assert questions("a1") == sorted([*EVERYWHERE, 6379, 6387, 6388, 8265, 8000, 8001])


def test_plan_asks_a_worker_about_those_that_it_listens_on() -> None:
    assert questions("a2") == sorted(EVERYWHERE)


def test_plan_asks_about_the_ports_that_the_inventory_chose() -> None:
    given = {"ray_node_port": 7000, "ray_node_ports": {"metrics": 7001}, "vllm_server_port": 9000}
    asked = questions("a1", **given)
    assert {7000, 7001, 9000, 8001} <= set(asked)
    assert not {6379, 6385, 8000} & set(asked)


def test_unknown_port_names_the_variable_and_the_choices() -> None:
    with pytest.raises(ValueError, match="ray_node_ports: unknown nodemanager; known are gcs, node_manager"):
        RayPorts.parse({"ports": {"nodemanager": 1}})


def test_defaults_of_the_roles_are_these() -> None:
    ray = yaml.safe_load((ROLES / "ray_node" / "defaults" / "main.yml").read_text())
    engine = yaml.safe_load((ROLES / "vllm_server" / "defaults" / "main.yml").read_text())
    assert ray["ray_node_port"] == RayPorts().gcs
    assert (engine["vllm_server_port"], engine["vllm_server_ready_port"]) == (EnginePorts().api, EnginePorts().ready)
    assert role_value("ray_node", "__ray_node_status_port") == ports.PEER_STATUS


def test_no_two_services_share_a_port() -> None:
    found = ports.listened_on(RayPorts(), EnginePorts(), head=True)
    assert len(found) == len(set(found)) == 14
    ranges = [*range(RayPorts().workers_first, RayPorts().workers_last + 1), *ports.RENDEZVOUS]
    assert not set(found) & set(ranges)


def test_the_default_ports_do_not_clash() -> None:
    named = ports.named(RayPorts(), EnginePorts(), head=True)
    assert list(ports.clashes(named)) == []
    single = {taken.start for taken in named.values() if len(taken) == 1}
    assert single == set(ports.listened_on(RayPorts(), EnginePorts(), head=True)) - {ports.NETWORK_GATE}
    worker = {taken.start for taken in ports.named(RayPorts(), EnginePorts(), head=False).values() if len(taken) == 1}
    assert worker == set(ports.listened_on(RayPorts(), EnginePorts(), head=False)) - {ports.NETWORK_GATE}


def test_ports_that_clash_are_named_with_what_moves_them() -> None:
    named = ports.named(RayPorts(metrics=20000), EnginePorts(29600, 6379), head=True)
    assert [(one, other, both.start) for one, other, both in ports.clashes(named)] == [
        ("ray_node_ports: metrics", "ray_node_ports: workers_first to workers_last", 20000),
        ("ray_node_port", "vllm_server_ready_port", 6379),
        ("vllm_server_port", "the gates", 29600),
    ]
