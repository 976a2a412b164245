"""playbooks/remove.yml in real runs: whole replicas, the capacity floor, the lock. Roles and lock are the stand-ins of test_rollout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.unit.playbooks.test_rollout import HOSTS, Ran, collection, pasted

__all__ = ["collection"]


def remove(
    collection: Path,
    folder: Path,
    *options: str,
    unready: dict[str, str] | None = None,
    fails: dict[str, list[str]] | None = None,
    floor: str | None = None,
) -> Ran:
    """remove.yml on two replicas of two hosts, of which those in ``unready`` do not answer requests."""
    log = folder / "log"
    log.write_text("")
    of_lock = {"unready": {"a1": "", "b1": "", **(unready or {})}}
    hosts = {
        host: {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "ray_node_role": "head" if host.endswith("1") else "worker",
            "log": str(log),
            "fails": fails or {},
            "answers": {"rollout_lock": of_lock},
        }
        for host in HOSTS
    }
    replicas = {
        name: {"hosts": {host: values for host, values in hosts.items() if HOSTS[host] == name}}
        for name in ("replica_a", "replica_b")
    }
    policy = {} if floor is None else {"rollout_capacity_floor": floor}
    inventory = {"all": {"children": {"lockstep": {"children": replicas, "vars": policy}}}}
    (folder / "inventory.yml").write_text(yaml.safe_dump(inventory))
    (folder / "ansible.cfg").write_text(f"[defaults]\ncollections_path = {collection}\nlocal_tmp = {folder}/tmp\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "inventory.yml", "lockstep.vllm.remove", *options],
        cwd=folder,
        env={**os.environ, "ANSIBLE_CONFIG": str(folder / "ansible.cfg")},
        capture_output=True,
        text=True,
    )
    return Ran(done.returncode, done.stdout + done.stderr, log.read_text().splitlines())


def test_a_replica_is_removed_while_the_other_serves(collection: Path, tmp_path: Path) -> None:
    ran = remove(collection, tmp_path, "--limit", "replica_b")
    assert ran.rc == 0, ran.text
    assert ran.of("b1") == [
        "rollout_lock",
        "vllm_server.stop",
        "ray_node.stop",
        "rollout_lock released",
        "nvidia_driver.release",
        "gpu_host.remove",
    ]
    assert ran.of("b2") == ["ray_node.stop", "nvidia_driver.release", "gpu_host.remove"]
    assert not [line for line in ran.log if line.startswith("a")]


@pytest.mark.parametrize(
    ("replicas", "floor", "unready", "cause", "following"),
    [
        pytest.param(
            "replica_b",
            None,
            {"a1": "it is starting"},
            "of 2 replicas 1 answer requests now (a1: it is starting): removing replica_b would leave 0, and the capacity floor is 1; "
            "nothing was done. Repair what does not serve first",
            "ansible-playbook lockstep.vllm.status",
            id="the other does not serve",
        ),
        pytest.param(
            "replica_a,replica_b",
            None,
            {},
            "removing replica_a, replica_b would leave 0, and the capacity floor is 1; nothing was done. Add a replica first",
            "ansible-playbook lockstep.vllm.remove --limit replica_a,replica_b -e rollout_capacity_floor=0",
            id="all of them",
        ),
        pytest.param(
            "replica_b",
            "100%",
            {},
            "removing replica_b would leave 1, and the capacity floor is 2",
            "ansible-playbook lockstep.vllm.remove --limit replica_b -e rollout_capacity_floor=1",
            id="the floor is all",
        ),
        pytest.param(
            "replica_b",
            "most",
            {},
            "rollout_capacity_floor is most: expected a number of replicas or a percentage (0% to 100%)",
            "",
            id="no floor",
        ),
    ],
)
def test_too_few_would_serve(
    collection: Path,
    tmp_path: Path,
    replicas: str,
    floor: str | None,
    unready: dict[str, str],
    cause: str,
    following: str,
) -> None:
    ran = remove(collection, tmp_path, "--limit", replicas, unready=unready, floor=floor)
    assert ran.rc != 0
    assert cause in ran.text, ran.text
    assert ("Next: " in ran.text) == bool(following), ran.text
    assert not following or f"Next: {pasted(tmp_path, following)}" in ran.text, ran.text
    assert [line.split(" ", 1)[1] for line in ran.log] == ["rollout_lock", "rollout_lock released"]


def test_check_mode_says_what_the_run_would(collection: Path, tmp_path: Path) -> None:
    ran = remove(collection, tmp_path, "--limit", "replica_b", "--check", unready={"a1": "it is starting"})
    assert ran.rc != 0
    assert "removing replica_b would leave 0, and the capacity floor is 1; nothing was done" in ran.text, ran.text


@pytest.mark.parametrize(
    ("floor", "unready"),
    [
        pytest.param(None, {"b1": "it is starting"}, id="the one that goes serves nobody"),
        pytest.param(None, {"a1": "x", "b1": "y"}, id="nobody serves"),
        pytest.param("0", {"a1": "it is starting"}, id="the floor that was named"),
    ],
)
def test_the_floor_keeps_nobody_who_does_not_hold_it(
    collection: Path, tmp_path: Path, floor: str | None, unready: dict[str, str]
) -> None:
    ran = remove(collection, tmp_path, "--limit", "replica_b", unready=unready, floor=floor)
    assert ran.rc == 0, ran.text
    assert ran.of("b1")[-1] == "gpu_host.remove"


@pytest.mark.parametrize(
    ("options", "cause"),
    [([], "was given all of them; nothing was done"), (["--limit", "b2"], "--limit leaves out b1 of replica_b")],
)
def test_whole_replicas_are_named(collection: Path, tmp_path: Path, options: list[str], cause: str) -> None:
    ran = remove(collection, tmp_path, *options)
    assert (ran.rc != 0, ran.log) == (True, []), ran.text
    assert cause in ran.text


def test_nothing_is_removed_where_a_host_does_not_stop(collection: Path, tmp_path: Path) -> None:
    ran = remove(collection, tmp_path, "--limit", "replica_b", fails={"b2": ["ray_node.stop"]})
    assert ran.rc != 0
    assert "rollout_lock released" in [line.split(" ", 1)[1] for line in ran.log]
    assert not [line for line in ran.log if line.endswith(("release", "gpu_host.remove"))], ran.log
    assert "nothing was removed" in ran.text
