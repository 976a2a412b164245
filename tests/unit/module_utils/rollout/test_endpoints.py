"""Where clients reach the cluster."""

from __future__ import annotations

from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.endpoints import endpoints
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.needs import Desired
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.topology import Replica, Topology
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.fields import read
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.served import Endpoint

TOPOLOGY = Topology(
    (
        Replica("replica_a", "a1", ("a2",), {"a1": "10.0.0.11", "a2": "10.0.0.12"}),
        Replica("replica_b", "b1", (), {"b1": "fd00::21"}),
    )
)
HEAD = {"vllm_server_model": "/srv/m", "vllm_server_served_model_name": "tiny", "vllm_server_port": 8100}


def desired(**settings: Any) -> Desired:
    return Desired(settings=settings, inputs={})


def test_every_replica_has_one_and_routers_come_first() -> None:
    wanted = {
        "a1": desired(
            **HEAD, vllm_server_api_key="x" * 32, vllm_server_proof_prompt="p", vllm_server_proof_max_tokens=8
        ),
        "b1": desired(**HEAD),
        "r1": desired(vllm_haproxy_api_port=8080),
    }
    found = endpoints(TOPOLOGY, wanted, {"r1": "10.0.0.5"})
    assert [(each["name"], each["router"], each["url"], each["key"]) for each in found] == [
        ("r1", True, "http://10.0.0.5:8080/v1", True),
        ("replica_a", False, "http://10.0.0.11:8100/v1", True),
        ("replica_b", False, "http://[fd00::21]:8100/v1", False),
    ]
    assert {each["model"] for each in found} == {"tiny"}
    assert "x" * 32 not in str(found)


def test_a_router_with_tls_is_reached_by_the_name_of_its_certificate() -> None:
    tls = {"vllm_haproxy_api_port": 8080, "vllm_haproxy_tls_port": 8443, "vllm_haproxy_tls_certificate": "/c.pem"}
    named = {**tls, "vllm_haproxy_api_name": "api.example.com", "vllm_haproxy_tls_ca": "/ca.pem"}
    wanted = {"a1": desired(**HEAD), "r1": desired(**tls), "r2": desired(**named), "r3": desired(**named)}
    found = [
        each for each in endpoints(TOPOLOGY, wanted, {f"r{n}": f"10.0.0.{n}" for n in (1, 2, 3)}) if each["router"]
    ]
    assert [(each["name"], each["url"], each.get("ca")) for each in found] == [
        ("r1", "https://10.0.0.1:8443/v1", None),
        ("r2", "https://api.example.com:8443/v1", "/ca.pem"),
    ]
    shown = read(Endpoint, found[1]).curl
    assert shown.startswith("curl -s --cacert /ca.pem https://api.example.com:8443/v1/completions -H ")


def test_a_cluster_that_serves_nothing_has_none() -> None:
    assert endpoints(TOPOLOGY, {"a1": desired(), "r1": desired(vllm_haproxy_api_port=1)}, {"r1": "10.0.0.5"}) == []
