"""What runs or serves and is not wanted by the inventory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils import haproxy
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import unexpected
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.topology import Replica
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.unexpected import UnexpectedCode

A = Replica("replica_a", "a1", ("a2",), {"a1": "10.0.0.11", "a2": "10.0.0.12"})
B = Replica("replica_b", "b1", (), {"b1": "10.0.0.21"})
SERVERS = {"replica_a": "10.0.0.11", "replica_b": "10.0.0.21"}
WANTED = unexpected.Wanted((A, B), {"r1": SERVERS}, {"a1", "a2", "b1", "r1", "c1", "all", "lockstep", *SERVERS})
REMOVE = "ansible-playbook playbooks/remove.yml"
DIAGNOSE = "ansible-playbook playbooks/diagnose.yml --limit replica_a"


def node(host: str | None, address: str, **other: Any) -> dict[str, Any]:
    return {"host": host, "address": address, "alive": True, **other}


def in_ray(*nodes: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return {"a1": {"ray": {"head": "up", "nodes": list(nodes)}, **parts}}


def server(address: str, status: str = "UP", up: bool | None = None) -> dict[str, Any]:
    return {"address": address, "status": status, "draining": False, "up": status == "UP" if up is None else up}


def in_router(**servers: dict[str, Any]) -> dict[str, Any]:
    return {"r1": {"router": {"servers": servers}}}


def runs(*units: str, **more: str) -> dict[str, Any]:
    return {
        f"lockstep-{name}.service": {"active": "active", "enabled": "enabled"} for name in units
    } | {f"lockstep-{name}.service": {"active": "inactive", "enabled": enabled} for name, enabled in more.items()}  # fmt: skip


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        pytest.param({}, [], id="nobody answered"),
        pytest.param(in_ray(node("a1", "10.0.0.11"), node("a2", "10.0.0.12")), [], id="Ray has whom it should"),
        pytest.param(in_ray(node("a3", "10.0.0.13", alive=False)), [], id="a dead node is nobody"),
        pytest.param(
            in_ray(node("a3", "10.0.0.13")),
            [("ray_node", "a3", "a1", f"{REMOVE} -i a3, --limit a3")],
            id="a host that left the inventory is in Ray",
        ),
        pytest.param(
            in_ray(node("b1", "10.0.0.21")), [("ray_node", "b1", "a1", DIAGNOSE)],
            id="another replica's host is in Ray: what a head says makes no command to remove that one",
        ),
        pytest.param(
            in_ray(node("a2", "10.0.0.99")), [("ray_node", "a2", "a1", DIAGNOSE)], id="an old machine has the name of a new one"
        ),
        pytest.param(
            in_ray(node("a2", "10.9.0.2"), tunnel={"wanted": True, "problem": ""}), [], id="a tunnel's address is another"
        ),
        pytest.param(
            in_ray(node(None, "10.0.0.99")),
            [("ray_node", "10.0.0.99", "a1", "ansible 10.0.0.99 -b -m ansible.builtin.command -a 'ray stop' -i 10.0.0.99,")],
            id="a node that nobody of ours started",
        ),
        pytest.param(
            in_ray(node("x; reboot", "10.0.0.99")), [("ray_node", "x; reboot", "a1", "")], id="a name that is no name: no command"
        ),
        pytest.param(in_ray(node("-i", "10.0.0.99")), [("ray_node", "-i", "a1", "")], id="an option is no name"),
        pytest.param(
            in_ray(node(None, "$(reboot)")), [("ray_node", "$(reboot)", "a1", "")], id="an address that is none: no command"
        ),
        pytest.param({"a1": {"ray": {"error": "OSError"}}}, [], id="Ray could not be read"),
        pytest.param(
            in_router(replica_a=server("10.0.0.11:8000"), replica_b=server("10.0.0.21:8000", "DOWN")), [], id="the router is as wanted"
        ),
        pytest.param(
            in_router(replica_c=server("10.0.0.31:8000")),
            [("router_server", "replica_c", "r1", f"{REMOVE} --limit replica_c")],
            id="a replica that left the inventory is sent requests",
        ),
        pytest.param(
            in_router(replica_c=server("10.0.0.31:8000", "DRAIN")),
            [("router_server", "replica_c", "r1", "ansible-playbook site.yml")],
            id="a replica that was removed: the router forgets it with site.yml",
        ),
        pytest.param(
            in_router(all=server("10.0.0.31:8000"), a1=server("10.0.0.31:8000")),
            [("router_server", "all", "r1", "ansible-playbook site.yml"), ("router_server", "a1", "r1", "ansible-playbook site.yml")],
            id="a router's word removes nothing that the inventory has",
        ),
        pytest.param(
            in_router(**{"x y": server("10.0.0.31:8000")}), [("router_server", "x y", "r1", "")], id="no name of a replica: no command"
        ),
        pytest.param(
            in_router(replica_a=server("10.0.0.12:8000")),
            [("router_server", "replica_a", "r1", "ansible-playbook site.yml")],
            id="a head that has moved",
        ),
        pytest.param({"r1": {"router": {"error": "HAProxy does not answer"}}}, [], id="HAProxy does not answer"),
        pytest.param(
            {"a1": {"units": runs("ray", "vllm"), "host": {"replica": "replica_a"}}}, [], id="a head runs what it should"
        ),
        pytest.param(
            {"a2": {"units": runs("ray", "vllm"), "host": {"replica": "replica_c"}}},
            [("other_replica", "a2", "a2", f"{REMOVE} --limit replica_a")],
            id="a host serves another replica, by its own record",
        ),
        pytest.param(
            {"a2": {"units": runs(vllm="enabled"), "host": {"replica": "replica_c"}}}, [], id="a new host that runs nothing yet"
        ),
        pytest.param(
            {"a2": {"units": runs("ray", "vllm"), "host": {"replica": "replica_a"}}},
            [("engine_off_head", "a2", "a2", f"{REMOVE} --limit replica_a")],
            id="the head has changed, and the old one has an engine",
        ),
        pytest.param(
            {"c1": {"units": runs("ray", "vllm"), "host": {"replica": "replica_c"}}},
            [("no_replica", "c1", "c1", f"{REMOVE} --limit c1")],
            id="a host of no replica serves",
        ),
        pytest.param(
            {"c1": {"units": runs(ray="enabled"), "host": None}},
            [("no_replica", "c1", "c1", f"{REMOVE} --limit c1")],
            id="a host of no replica would serve after a reboot",
        ),
        pytest.param({"c1": {"units": runs(ray="disabled")}}, [], id="a host that has nothing of ours running"),
        pytest.param({"c1": {"units": {"error": "x"}, "host": {"error": "y"}}}, [], id="a host that cannot be read"),
        pytest.param(
            {"c1": {"manifest": {"vllm_haproxy": {}}, "units": {"haproxy.service": {"active": "active"}}}},
            [("no_router", "c1", "c1",
              'ansible c1 -b -m ansible.builtin.systemd_service -a "name=haproxy.service state=stopped enabled=false"')],
            id="a router that is none any more",
        ),
        pytest.param({"c1": {"units": {"haproxy.service": {"active": "active"}}}}, [], id="somebody's own HAProxy"),
    ],
)  # fmt: skip
def test_what_is_there_and_not_wanted(states: dict[str, Any], expected: list[tuple[str, ...]]) -> None:
    found = unexpected.find(WANTED, states)
    assert [(str(each.code), each.name, each.seen_on, each.next) for each in found] == expected


def test_every_code_has_a_case() -> None:
    marks = test_what_is_there_and_not_wanted.pytestmark  # type: ignore[attr-defined]
    seen = {row[0] for case in marks[0].args[1] for row in case.values[1]}
    assert seen == {code.value for code in UnexpectedCode}


def test_the_cause_says_what_where_and_what_next() -> None:
    (found,) = unexpected.find(WANTED, {"c1": {"units": runs("ray", vllm="enabled"), "host": {"replica": "replica_c"}}})
    assert found.cause == (
        "c1 is in no replica of the inventory, and has lockstep-ray.service active and lockstep-vllm.service enabled "
        "for replica_c, by its own record"
    )
    assert found.serving


def test_haproxy_s_own_answer() -> None:
    """As HAProxy 2.6 answered: a server that was drained, and one that is up."""
    captured = Path(__file__).parents[2] / "fixtures" / "haproxy" / "2.6.12"
    for moment, up in (("up", True), ("drain", False)):
        one = haproxy.parse_stat((captured / f"stat_{moment}.csv").read_text())["replica_a"]
        assert (one.address, one.up) == ("10.0.0.11:8000", up)
        states = in_router(replica_a=server(one.address, one.status, one.up))
        assert unexpected.find(WANTED, states) == ()
        gone = unexpected.Wanted((B,), {"r1": {"replica_b": "10.0.0.21"}})
        (found,) = unexpected.find(gone, states)
        assert (found.name, found.serving, found.next) == (
            "replica_a",
            up,
            f"{REMOVE} --limit replica_a" if up else "ansible-playbook site.yml",
        )


def test_nothing_that_turns_a_terminal_s_line_is_shown() -> None:
    (found,) = unexpected.find(WANTED, in_ray(node("a\u202e3\n", "10.0.0.13")))
    assert (found.next, "\u202e" in found.cause + found.name) == ("", False)
