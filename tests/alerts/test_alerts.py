"""The metrics and the alert rules, held against Prometheus' own tool."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lockstep.vllm.plugins.module_utils.host import metrics
from tests.unit.module_utils.host.host_states import HEAD, WORKER

RULES = Path(__file__).parents[2] / "docs/reference/alerts.yml"
ROUTERS = RULES.parents[2] / "roles/vllm_haproxy/templates/lockstep-router.prom.j2"


@pytest.mark.parametrize("state", [HEAD, WORKER, {}], ids=["head", "worker", "nothing known"])
def test_promtool_finds_nothing_to_complain_of(promtool: str, state: dict[str, Any]) -> None:
    text = metrics.render(metrics.samples(state))
    checked = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_rules_are_sound(promtool: str) -> None:
    checked = subprocess.run([promtool, "check", "rules", str(RULES)], text=True, capture_output=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_rules_fire_when_they_should_and_not_else(promtool: str) -> None:
    cases = Path(__file__).with_name("alerts_test.yml")
    tested = subprocess.run([promtool, "test", "rules", str(cases)], text=True, capture_output=True)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_rules_use_metrics_that_exist_and_every_rule_has_a_case() -> None:
    text = RULES.read_text()
    used = set(re.findall(r"lockstep_\w+", text))
    of_routers = re.findall(r"^(lockstep_\w+)", ROUTERS.read_text(), re.MULTILINE)
    assert used <= {*of_routers, *(f"lockstep_{metric.name}" for metric in metrics.METRICS)}
    cases = Path(__file__).with_name("alerts_test.yml").read_text()
    assert [rule for rule in re.findall(r"alert: (\w+)", text) if f'alertname="{rule}"' not in cases] == []


def test_no_command_names_the_address_that_is_scraped() -> None:
    commands = re.findall(r"next: (.+)", RULES.read_text())
    assert commands
    assert [command for command in commands if "labels.instance" in command] == []


def test_every_sample_names_host_and_replica() -> None:
    for state in (HEAD, WORKER):
        for sample in metrics.samples(state):
            assert (sample.labels["host"], sample.labels["replica"]) == (
                state["host"]["host"],
                state["host"]["replica"],
            )


def test_the_receiver_of_alertmanager_is_sound_and_is_notified_when_a_replica_is_back(amtool: str) -> None:
    example = RULES.with_name("alertmanager.yml")
    checked = subprocess.run([amtool, "check-config", str(example)], text=True, capture_output=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    (receiver,) = yaml.safe_load(example.read_text())["receivers"]
    assert [hook["send_resolved"] for hook in receiver["webhook_configs"]] == [True]
