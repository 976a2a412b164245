"""A real Prometheus reads a cluster by docs/reference/prometheus.yml, evaluates it by docs/reference/alerts.yml, and answers
the dashboard's questions."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.alerts.test_dashboard import EXPRESSIONS
from tests.e2e.lab import ROOT, Lab, eventually

pytestmark = pytest.mark.long

HOSTS = ("a1", "a2")
TEXTFILES = "/var/lib/prometheus/node-exporter"
# A machine's root has CAP_DAC_READ_SEARCH, a container's has not; and in a container these two hide what is mounted at
# /proc/driver/nvidia, which on a machine is the kernel's own.
AS_ON_A_MACHINE = """[Service]
CapabilityBoundingSet=CAP_DAC_OVERRIDE
ProtectKernelTunables=no
ProtectControlGroups=no
"""
EXPORTER = "test-node-exporter"
DROP_IN = "/run/systemd/system/lockstep-metrics.service.d"
Ask = Callable[..., Any]


@pytest.fixture
def exporters(lab: Lab, node_exporter: str) -> Iterator[None]:
    """node_exporter on every host, with the collector alone that reads Lockstep's file."""
    for host in HOSTS:
        subprocess.run(
            ["scp", "-q", "-F", lab.state / "ssh_config", node_exporter, f"{host}:/usr/local/bin/{EXPORTER}"],
            check=True,
            timeout=60,
        )
        lab.on(
            host,
            f"mkdir -p {DROP_IN} && printf %s {shlex.quote(AS_ON_A_MACHINE)} > {DROP_IN}/testbed.conf "
            "&& systemctl daemon-reload",
        )
        lab.on(
            host,
            f"chmod 755 /usr/local/bin/{EXPORTER} && systemd-run --unit {EXPORTER} /usr/local/bin/{EXPORTER} "
            f"--collector.disable-defaults --collector.textfile --collector.textfile.directory={TEXTFILES}",
        )
    yield
    for host in HOSTS:
        lab.on(
            host,
            f"systemctl stop {EXPORTER}; rm -rf /usr/local/bin/{EXPORTER} {DROP_IN}; systemctl daemon-reload",
            check=False,
        )


@pytest.fixture
def server(lab: Lab, exporters: None, prometheus: str, tmp_path: Path) -> Iterator[Ask]:
    """Prometheus, configured as docs/how-to/prometheus-and-grafana.md says, but asking every 2 s; a question to its API."""
    first = lab.play()
    assert first.rc == 0, first.explained()
    targets = tmp_path / "targets"
    play = lab.play(
        "playbooks/metrics.yml", extra={"node_metrics_targets_folder": str(targets), "node_metrics_interval": 5}
    )
    assert play.rc == 0, play.explained()
    reference = ROOT / "docs/reference"
    often = "global: {scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 2s}\n"
    jobs = (reference / "prometheus.yml").read_text().replace("/etc/prometheus/lockstep", str(targets))
    jobs = "\n".join(line for line in jobs.splitlines() if "scrape_interval:" not in line)
    (tmp_path / "prometheus.yml").write_text(f"{often}{jobs}\n")
    (tmp_path / "alerts.yml").write_text((reference / "alerts.yml").read_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [
            prometheus,
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def ask(what: str, **parameters: str) -> Any:
        try:
            with urllib.request.urlopen(
                f"http://{address}/api/v1/{what}?{urllib.parse.urlencode(parameters)}", timeout=10
            ) as answer:
                return json.load(answer)["data"]
        except OSError:
            return {}

    try:
        yield ask
    finally:
        process.terminate()
        process.wait(30)


def values(ask: Ask, expression: str) -> dict[str, str]:
    """Of an instant query: the value by host."""
    found = ask("query", query=expression).get("result", [])
    return {each["metric"].get("host", ""): each["value"][1] for each in found}


def alerts(ask: Ask) -> dict[str, dict[str, str]]:
    """Alerts that are pending or firing, with their labels."""
    return {each["labels"]["alertname"]: each["labels"] for each in ask("alerts").get("alerts", [])}


def test_prometheus_sees_the_cluster_and_what_goes_wrong(lab: Lab, server: Ask) -> None:
    def up() -> set[tuple[str, str]]:
        found = server("targets", state="active").get("activeTargets", [])
        return {(each["labels"]["job"], each["labels"]["instance"]) for each in found if each["health"] == "up"}

    head, worker = (lab.address(host) for host in HOSTS)
    wanted = {
        ("lockstep-hosts", f"{head}:9100"),
        ("lockstep-hosts", f"{worker}:9100"),
        ("lockstep-vllm", f"{head}:8000"),
    }
    eventually(f"scraped: {wanted}", lambda: up() >= wanted, 60)
    eventually("the engine's state is read", lambda: values(server, "lockstep_engine_ready") == {"a1": "1"}, 60)
    assert set(values(server, "lockstep_host_info")) == set(HOSTS)
    assert values(server, "lockstep_host_stamp_valid") == dict.fromkeys(HOSTS, "1")
    assert server("query", query="vllm:num_requests_running")["result"], "vLLM's own"

    unanswered = [where for where, expression in EXPRESSIONS if not server("query", query=expression)]
    assert unanswered == [], "Prometheus does not understand what the dashboard asks"
    cells = dict(EXPRESSIONS)
    shown = {where: server("query", query=cells[where])["result"] for where in ("Replicas that serve A", "replica")}
    assert [each["value"][1] for each in shown["Replicas that serve A"]] == ["1"]
    assert {each["metric"]["replica"] for each in shown["replica"]} == {"replica_a"}

    def rules() -> list[dict[str, Any]]:
        return [rule for group in server("rules").get("groups", []) for rule in group["rules"]]

    eventually("every rule is evaluated", lambda: bool(rules()) and all(rule["health"] == "ok" for rule in rules()), 60)
    assert alerts(server) == {}, "all is well"

    lab.on(HOSTS[0], "systemctl stop lockstep-vllm")
    try:
        eventually("the alert", lambda: "LockstepReplicaNotServing" in alerts(server), 60)
        assert alerts(server)["LockstepReplicaNotServing"]["replica"] == "replica_a"
    finally:
        back = lab.play()
        assert back.rc == 0, back.explained()
    eventually("the alert is over", lambda: "LockstepReplicaNotServing" not in alerts(server), 60)
