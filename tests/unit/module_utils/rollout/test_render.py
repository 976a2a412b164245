"""A plan and its refusals stay short however many hosts they are about: what is alike is shown once."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import needs, plan, render, topology
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.observed import Observed
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.policy import Policy
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.states import Mode
from tests.unit.networks import networks

NOON = datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.UTC)
VERSION = "550.127.05"


def fleet(replicas: int) -> topology.Topology:
    """Replicas of a head and a worker: gpu001 and gpu002, gpu003 and gpu004 …"""
    return topology.Topology(
        tuple(
            topology.Replica(
                f"replica{n:03}",
                f"gpu{2 * n - 1:03}",
                (f"gpu{2 * n:03}",),
                {f"gpu{host:03}": f"10.0.{host // 250}.{host % 250 + 1}" for host in (2 * n - 1, 2 * n)},
            )
            for n in range(1, replicas + 1)
        )
    )


def state(address: str, serving: bool) -> dict[str, Any]:
    """A bare host; with ``serving``, one that serves on the driver before the desired one."""
    gpus = [{"name": "NVIDIA H200", "uuid": f"GPU-{address}-{n}"} for n in range(8)]
    driver = {"package_version": "550.90.07", "loaded_version": "550.90.07", "gpus": gpus} if serving else {}
    return {
        "os": {"distribution": "ubuntu", "like": "debian", "version": "24.04", "kernel": "6.8"},
        "driver": {"packages": {}, "gpus": [], **driver},
        "units": {name: {"active": "active"} for name in ("lockstep-ray.service", "lockstep-vllm.service")}
        if serving
        else {},
        "engine": {"phase": "serving"} if serving else None,
        "manifest": {},
        "networks": networks(eth0=address),
        "machine": {"id": f"id-{address}", "pci_gpus": 8},
    }


def planned(where: topology.Topology, answers: dict[str, Observed]) -> tuple[plan.Plan, str]:
    common = {
        "nvidia_driver_version": VERSION,
        "nvidia_driver_source": "mirror",
        "gpu_host_gpus": 8,
        "gpu_host_interface": "eth0",
        "vllm_server_model": "owner/model",
    }
    desired = {
        host: needs.Desired({**common, "gpu_host_address": address}, {})
        for replica in where.replicas
        for host, address in replica.addresses.items()
    }
    made = plan.build(where, desired, answers, plan.Run(Mode.CONVERGE, Policy(), NOON))
    return made, render.text(made, where, answers)


def answers(where: topology.Topology, serving: bool) -> dict[str, Observed]:
    addresses = {host: address for replica in where.replicas for host, address in replica.addresses.items()}
    return {host: Observed.parse(state(address, serving), None, True) for host, address in addresses.items()}


def test_a_plan_of_sixteen_fresh_hosts_that_are_alike_fits_a_screen() -> None:
    where = fleet(8)
    made, text = planned(where, answers(where, serving=False))
    assert len(made.waves) == 1
    assert len(text.splitlines()) <= 25, text
    assert "  gpu[001-016]: prepare, runtime, ray: never applied" in text.splitlines()


def test_waves_for_the_same_reasons_are_shown_once() -> None:
    where = fleet(50)
    made, text = planned(where, answers(where, serving=True))
    assert len(made.waves) > 5
    assert len(text.splitlines()) <= 25, text
    assert text.splitlines()[0].startswith(
        f"canary 1 of {len(made.waves)}: replica001; meanwhile replica[002-050] serve"
    )
    assert "waves 3 to 6 of 6: replica[014-050], for the same reasons" in text


def test_a_thousand_unreachable_hosts_are_one_line() -> None:
    where = fleet(500)
    hosts = [host for replica in where.replicas for host in replica.hosts]
    made, text = planned(
        where, {host: Observed(None, f"ssh: connect to host {host}: timed out", False) for host in hosts}
    )
    assert len(made.refusals) == 1000
    assert text.splitlines() == [
        "Refused before anything was changed, for 1 reason:",
        "  - gpu[001-1000]: unreachable: bring it back or remove it from the inventory "
        "(gpu001: ssh: connect to host gpu001: timed out). Next: ansible gpu001 -m ansible.builtin.ping",
    ]


@pytest.mark.parametrize(
    ("stops", "lines"),
    [
        ([Stop("the inventory is empty")], ["the inventory is empty"]),
        ([Stop("too hot", where="a1"), Stop("too hot", where="a2"), Stop("late", where="a1")], ["a1, a2: too hot", "a1: late"]),
        ([Stop("a1: x"), Stop("a1: x")], ["a1: x"]),
        ([Stop("lost", "ping a1", "a1", "e1"), Stop("lost", "ping a2", "a2", "e2")], ["a1, a2: lost (a1: e1). Next: ping a1"]),
        ([Stop("lost", "ping a1", "a1", "e1")], ["a1: lost (e1). Next: ping a1"]),
    ],
)  # fmt: skip
def test_alike_reasons_are_one_line(stops: list[Stop], lines: list[str]) -> None:
    assert render.lines(stops) == lines
