"""From bare hosts to an answering cluster, and what the next runs do to it. In order: each test finds what the last left."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from tests.e2e.lab import Lab, Play, difference, eventually

HEAD, WORKER = "a1", "a2"
HOSTS = (HEAD, WORKER)
EXECUTIONS_PER_HOST = 3  # the most that a run which changes nothing may cost a host
RECOVERY_DEADLINE = 300  # seconds for a rebooted worker to serve again

PYTHON = "PYTHONPATH=/opt/lockstep/lib python3"


def completion(lab: Lab) -> str:
    """What the model really answers to the testbed's known prompt, asked on the head itself; empty where it doesn't."""
    request = {"model": "tiny", "prompt": lab.facts()["proof_prompt"], "max_tokens": 48, "temperature": 0}
    reply = lab.on(
        HEAD,
        f"curl -s -m 30 http://{HEAD}:8000/v1/completions -H 'Content-Type: application/json' "
        f"-d {shlex.quote(json.dumps(request))}",
        check=False,
    )
    try:
        return str(json.loads(reply)["choices"][0]["text"])
    except (ValueError, KeyError, IndexError, TypeError):
        return ""


def answers(lab: Lab) -> bool:
    return str(lab.facts()["proof_answer"]) in completion(lab)


def ray_status(lab: Lab) -> str:
    """What ``ray status`` prints on the head."""
    return lab.on(
        HEAD,
        "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=/etc/lockstep/ray-token "
        f"/opt/lockstep/runtime/current/bin/ray status --address {HEAD}:6379",
    )


def ray_nodes(lab: Lab) -> int:
    """How many nodes live in the head's Ray cluster."""
    active = ray_status(lab).partition("Active:")[2].partition("Pending:")[0]
    return len(re.findall(r"\bnode_\w+", active))


@pytest.fixture(scope="module")
def fresh(lab: Lab) -> Play:
    play = lab.play()
    assert play.rc == 0, play.explained()
    return play


def test_a_fresh_cluster_answers(lab: Lab, fresh: Play) -> None:
    assert fresh.changed().keys() >= set(HOSTS)
    assert answers(lab), f"the model answered {completion(lab)!r}"


def test_what_vllm_logs_becomes_advice(lab: Lab, fresh: Play) -> None:
    advice = "Tensor parallelism of 2 spans hosts with 1 GPUs each"
    assert advice in " ".join(re.sub(r"\x1b\[[0-9;]*m", "", fresh.text).split())
    assert f"advice: {advice}" in lab.on(HEAD, "journalctl -u lockstep-vllm --no-pager")


def test_vllm_is_sharded_over_two_hosts_by_ray(lab: Lab, fresh: Play) -> None:
    assert re.search(r"/2\.0 GPU\b", ray_status(lab)), ray_status(lab)
    assert ray_nodes(lab) == 2
    engine = lab.on(HEAD, "pgrep -af 'vllm serve' | head -n 1")
    assert re.search(r"--tensor-parallel-size[ =]2\b", engine), engine
    for host in HOSTS:
        assert lab.on(host, "pgrep -f 'ray::.*Worker' | wc -l") != "0", f"no rank of the engine runs on {host}"


def test_drivers_are_pinned_held_loaded_and_stamped(lab: Lab, fresh: Play) -> None:
    for host in HOSTS:
        loaded = lab.on(host, "cat /sys/module/nvidia/version")
        assert loaded in lab.on(host, "nvidia-smi --query-gpu=driver_version --format=csv,noheader")
        installed = lab.on(
            host, "dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\\n' '*nvidia*' | grep ^.i"
        )
        held = set(lab.on(host, "apt-mark showhold").split())
        for line in installed.splitlines():
            package, version = line.split()[1:3]
            if version.startswith(loaded):
                assert package in held, f"{host}: {package} is not held"
        stamp = lab.record(host, "/var/lib/lockstep/stamp/host.json")
        assert stamp
        assert stamp["fingerprint"]["driver"] == loaded
    assert lab.record(HEAD, "/var/lib/lockstep/stamp/replica.json")
    assert lab.on(HEAD, "systemctl show -p User --value lockstep-ray lockstep-vllm").split() == ["lockstep"] * 2


def test_a_second_run_is_idempotent_and_costs_few_calls(lab: Lab, fresh: Play) -> None:
    before = lab.snapshot(HOSTS)
    play = lab.play()
    assert play.rc == 0, play.explained()
    assert play.changed() == {}
    counted = play.executions(HOSTS)
    assert set(counted) == set(HOSTS), "the run was counted wrongly: it asks every host at least once"
    assert max(counted.values()) <= EXECUTIONS_PER_HOST, counted
    assert difference(before, lab.snapshot(HOSTS)) == {}


def test_check_mode_shows_the_plan_and_changes_nothing(lab: Lab, fresh: Play) -> None:
    before = lab.snapshot(HOSTS)
    play = lab.play("site.yml", "--check", "--diff", extra={"nvidia_driver_version": "550.90.07"})
    assert play.rc == 0, play.explained()
    assert "550.90.07" in play.text, "the plan is not shown"
    assert difference(before, lab.snapshot(HOSTS)) == {}


def test_limit_to_one_replica_works(lab: Lab, fresh: Play) -> None:
    play = lab.play("site.yml", "--limit", "replica_a")
    assert play.rc == 0, play.explained()
    assert play.changed() == {}


def test_a_rebooted_worker_serves_again_by_itself(lab: Lab, fresh: Play) -> None:
    boot = lab.on(WORKER, "systemctl show -p UserspaceTimestampMonotonic --value")
    driver = lab.on(WORKER, "cat /sys/module/nvidia/version")
    lab.testbed("reboot", WORKER, "--wait")
    assert lab.on(WORKER, "systemctl show -p UserspaceTimestampMonotonic --value") != boot
    took = eventually("the replica answers after its worker's reboot", lambda: answers(lab), RECOVERY_DEADLINE)
    print(f"served again {took:.0f} s after the worker was up")
    assert lab.on(WORKER, "cat /sys/module/nvidia/version") == driver
    assert lab.on(WORKER, "systemctl is-active lockstep-ray") == "active"
    assert ray_nodes(lab) == 2


def test_a_host_with_another_driver_stays_out(lab: Lab, fresh: Play) -> None:
    lab.testbed("fault", WORKER, "wrong_module_loads", "550.54.15")
    try:
        lab.testbed("reboot", WORKER, "--wait")
        eventually(
            "the host's Ray unit has decided",
            lambda: lab.on(WORKER, "systemctl is-active lockstep-ray", check=False) not in ("activating", "active"),
            60,
        )
        journal = lab.on(WORKER, "journalctl -b -u lockstep-ray --no-pager -o cat")
        assert "550.54.15" in journal, f"its journal lacks the reason:\n{journal}"
        probe = lab.on(
            WORKER,
            f"{PYTHON} -c 'import json; from lockstep.admission import condition; from lockstep.host import probe;"
            ' decision = condition.decide_here("host");'
            ' print(json.dumps([decision.allowed, decision.reason, probe.collect({})["driver"]]))\'',
        )
        allowed, reason, _driver = json.loads(probe)
        assert not allowed
        assert "550.54.15" in reason
    finally:
        lab.testbed("fault", WORKER, "--clear")
    lab.testbed("reboot", WORKER, "--wait")
    # The engine has given up, as waiting for a host that may not join is hopeless: the next run brings it back.
    play = lab.play()
    assert play.rc == 0, play.explained()
    assert answers(lab)
