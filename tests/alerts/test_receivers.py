"""The five events, as somebody else's receiver gets them: a roll begun, failed and done by the webhook; a replica lost and back
by Prometheus and Alertmanager, configured as docs/reference says."""

from __future__ import annotations

import contextlib
import copy
import http.server
import json
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ansible_collections.lockstep.vllm.plugins.module_utils.host import metrics
from tests.unit.callback.test_rollout import BAD, GOOD, Project
from tests.unit.callback.test_webhook import BEARER, SCHEMA, SECRET, configure_webhook
from tests.unit.module_utils.host.host_states import HEAD

REFERENCE = Path(__file__).parents[2] / "docs/reference"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def running(*command: object, ready: int) -> Iterator[None]:
    """A server, until the context is left; entered when its port ``ready`` takes connections."""
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        eventually(f"{command[0]} listens", lambda: process.poll() is not None or listens(ready))
        assert process.poll() is None, process.communicate()[0]
        yield
    finally:
        process.terminate()
        process.communicate(timeout=30)


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def eventually(what: str, so: Callable[[], bool], deadline: float = 60) -> None:
    ends = time.monotonic() + deadline
    while not so():
        assert time.monotonic() < ends, f"{what}: not within {deadline:g} s"
        time.sleep(0.2)


class Receiver:
    """adnanh/webhook with one hook: it writes each body that its rule lets in into a file."""

    def __init__(self, folder: Path, rule: dict[str, Any]) -> None:
        self._got = folder / "got"
        self._got.touch()
        keep = folder / "keep"
        keep.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$1\" >>{self._got}\n")
        keep.chmod(0o755)
        hook = {
            "id": "lockstep",
            "execute-command": str(keep),
            "pass-arguments-to-command": [{"source": "entire-payload"}],
            "trigger-rule": rule,
            "trigger-rule-mismatch-http-response-code": 403,
        }
        self.hooks = folder / "hooks.json"
        self.hooks.write_text(json.dumps([hook]))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/hooks/lockstep"

    @property
    def got(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._got.read_text().splitlines()]


@pytest.fixture
def receive(webhook_server: str, tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Receiver]]:
    with contextlib.ExitStack() as stack:

        def start(rule: dict[str, Any]) -> Receiver:
            receiver = Receiver(tmp_path, rule)
            command = [webhook_server, "-hooks", receiver.hooks, "-ip", "127.0.0.1", "-port", receiver.port]
            stack.enter_context(running(*command, ready=receiver.port))
            return receiver

        yield start


def signed_with(secret: str) -> dict[str, Any]:
    """Its own check of ``X-Lockstep-Signature``, and of the header that the inventory adds."""
    signature = {"source": "header", "name": "X-Lockstep-Signature"}
    bearer = {"source": "header", "name": "Authorization"}
    return {
        "and": [
            {"match": {"type": "payload-hmac-sha256", "secret": secret, "parameter": signature}},
            {"match": {"type": "value", "value": BEARER, "parameter": bearer}},
        ]
    }


@pytest.mark.parametrize(
    ("plays", "events"),
    [
        pytest.param(GOOD, ["roll_begun", "roll_done"], id="done"),
        pytest.param(BAD, ["roll_begun", "roll_failed"], id="failed"),
    ],
)
def test_a_roll_is_reported_to_somebody_elses_receiver(
    plays: list[dict[str, Any]], events: list[str], receive: Callable[..., Receiver], tmp_path: Path
) -> None:
    receiver = receive(signed_with(SECRET))
    folder = tmp_path / "project"
    folder.mkdir()
    project = Project(folder)
    configure_webhook(project, receiver.url)
    run = project.run(plays)
    eventually("both messages are taken", lambda: len(receiver.got) == 2, 20)
    assert "webhook" not in run.stdout.read(), "none was missed"
    for message in receiver.got:
        jsonschema.validate(message, SCHEMA)
    assert [message["event"] for message in receiver.got] == events


def test_a_receiver_that_expects_another_secret_takes_nothing(receive: Callable[..., Receiver], tmp_path: Path) -> None:
    receiver = receive(signed_with("another"))
    folder = tmp_path / "project"
    folder.mkdir()
    project = Project(folder)
    configure_webhook(project, receiver.url)
    run = project.run(GOOD)
    assert run.rc == 0
    assert "the webhook has missed a message" in " ".join(run.stdout.read().split())
    assert receiver.got == []


class Exporter:
    """What a head's node_exporter says, with the engine ready or not."""

    def __init__(self) -> None:
        self.ready = True
        exporter = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                state = copy.deepcopy(HEAD)
                state["engine"]["ready"] = exporter.ready
                body = metrics.render(metrics.samples(state)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: Any) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    made = Exporter()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def alerting(alertmanager: str) -> list[str]:
    """The command of Alertmanager. Debian's looks for its templates below /usr/share: there its package's lie for it alone."""
    above = Path(alertmanager).parents[2]
    if above == Path("/"):
        return [alertmanager]
    mounted = f"mount -t overlay overlay -o lowerdir={above}/usr/share:/usr/share /usr/share"
    alone = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*alone, mounted], capture_output=True, check=False).returncode:
        pytest.skip("nothing may be mounted here, and Alertmanager is not installed")
    return [*alone, f'{mounted} && exec "$@"', "sh", alertmanager]


def at_once(text: str) -> str:
    """A rule's or a route's minutes as seconds: what is reported and to whom stays as it is."""
    for slow, fast in (
        ("for: 10m", "for: 1s"),
        ("group_wait: 10s", "group_wait: 0s"),
        ("group_interval: 1m", "group_interval: 1s"),
    ):
        text = text.replace(slow, fast)
    return text


def test_a_replica_that_is_lost_and_back_is_reported_by_alertmanager(
    prometheus: str, alerting: list[str], receive: Callable[..., Receiver], exporter: Exporter, tmp_path: Path
) -> None:
    receiver = receive(
        {"match": {"type": "value", "value": "lockstep", "parameter": {"source": "payload", "name": "receiver"}}}
    )
    example = (REFERENCE / "alertmanager.yml").read_text()
    (tmp_path / "alertmanager.yml").write_text(
        at_once(example).replace("https://alerts.example.org/lockstep", receiver.url)
    )
    alertmanager_at, scraped_at = free_port(), free_port()
    groups = yaml.safe_load(at_once((REFERENCE / "alerts.yml").read_text()))["groups"]
    (rule,) = [rule for group in groups for rule in group["rules"] if rule["alert"] == "LockstepReplicaNotServing"]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "one", "rules": [rule]}]}))
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager_at}"]}]}]},
        "scrape_configs": [
            {
                "job_name": "lockstep-hosts",
                "static_configs": [{"targets": [f"127.0.0.1:{exporter.server.server_port}"]}],
            }
        ],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    telling = [
        *alerting,
        f"--config.file={tmp_path}/alertmanager.yml",
        f"--storage.path={tmp_path}/alertmanager",
        f"--web.listen-address=127.0.0.1:{alertmanager_at}",
        "--cluster.listen-address=",
    ]
    scraping = [
        prometheus,
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/prometheus",
        f"--web.listen-address=127.0.0.1:{scraped_at}",
    ]

    def seen() -> list[dict[str, Any]]:
        query = f"http://127.0.0.1:{scraped_at}/api/v1/query?query=lockstep_engine_ready"
        with urllib.request.urlopen(query, timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found

    with running(*telling, ready=alertmanager_at), running(*scraping, ready=scraped_at):
        eventually("it is scraped", lambda: bool(seen()))
        assert receiver.got == [], "all is well"
        exporter.ready = False
        eventually("the replica is lost", lambda: len(receiver.got) == 1)
        exporter.ready = True
        eventually("the replica is back", lambda: len(receiver.got) == 2)
    lost, back = receiver.got
    assert (lost["status"], back["status"]) == ("firing", "resolved")
    for message in (lost, back):
        (alert,) = message["alerts"]
        assert alert["labels"]["alertname"] == "LockstepReplicaNotServing"
        assert alert["labels"]["replica"] == "replica_a"
        assert alert["annotations"]["next"].startswith("ansible-playbook ")
        assert alert["annotations"]["summary"] == "replica_a has not served for ten minutes"
