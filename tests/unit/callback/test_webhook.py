"""The webhook in real runs: what a receiver gets, and that a receiver that hangs, fails or is gone changes nothing for the run."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import webhook, webhook_sender
from tests.machine import ENDLESS, until
from tests.unit.callback.test_rollout import BAD, BEFORE, GOOD, HOSTS, PLANNED, ROOT, Project, play, report, step

SECRET, BEARER, IN_URL = "s3cret-of-the-signature", "Bearer t0ken-of-the-header", "k3y-in-the-path"
SCHEMA = json.loads((ROOT / "docs/reference/webhook.schema.json").read_text(encoding="utf-8"))


def exposed() -> list[str]:
    """Command lines and environments of this machine in which a secret stands, but those of pytest itself."""
    found = []
    for path in (*Path("/proc").glob("[0-9]*/cmdline"), *Path("/proc").glob("[0-9]*/environ")):
        with contextlib.suppress(OSError):
            text = path.read_bytes()
            found += [f"{path}: {text[:80]!r}" for secret in (SECRET, BEARER, IN_URL) if secret.encode() in text]
    return found


class Receiver:
    """Somebody's HTTP server. ``answers`` are the statuses of the first requests, the last for all further ones; ``hangs``: it
    takes a request and says nothing."""

    def __init__(self, answers: tuple[int, ...] = (204,), hangs: bool = False) -> None:
        self.got: list[tuple[dict[str, str], bytes, list[str]]] = []
        receiver = self
        self.over = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((dict(self.headers), body, exposed()))
                if hangs:
                    receiver.over.wait(ENDLESS)
                    return
                self.send_response(answers[min(len(receiver.got), len(answers)) - 1])
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                receiver.got.append(({}, b'{"event": "followed a redirect"}', []))

            def log_message(self, *_arguments: Any) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hooks/{IN_URL}"

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _headers, body, _exposed in self.got]

    def until(self, messages: int) -> None:
        until(lambda: len(self.got) >= messages, f"message {messages}")

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def receiving(answers: tuple[int, ...] = (204,), hangs: bool = False) -> Iterator[Receiver]:
    receiver = Receiver(answers, hangs)
    try:
        yield receiver
    finally:
        receiver.close()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def configure_webhook(project: Project, url: str, **more: Any) -> None:
    """An inventory whose hosts tell the webhook."""
    hosts = {name: {"ansible_connection": "local", "ansible_python_interpreter": sys.executable} for name in HOSTS}
    variables = {
        "rollout_webhook_url": url,
        "rollout_webhook_secret": "{{ signed_with }}",
        "rollout_webhook_headers": {"Authorization": BEARER},
        "signed_with": SECRET,
        **more,
    }
    groups = {"lockstep": {"hosts": hosts, "vars": variables}}
    (project.folder / "inventory.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))


def left_behind(project: Project, screen: str) -> str:
    """All that a run says and keeps."""
    kept = [path.read_text(errors="replace") for path in (project.folder / ".cache").rglob("*") if path.is_file()]
    return "\n".join([screen, *kept])


def test_a_roll_that_succeeds_is_reported_and_no_secret_is_seen(project: Project) -> None:
    with receiving() as receiver:
        configure_webhook(project, receiver.url)
        run = project.run(GOOD, cmdline="-vvv")
        receiver.until(2)
    assert run.rc == 0
    begun, done = receiver.messages
    for message in (begun, done):
        jsonschema.validate(message, SCHEMA)
    assert (begun["event"], begun["wave"], begun["waves"], begun["outcome"]) == ("roll_begun", 1, 2, None)
    assert (begun["replicas"], begun["hosts"]) == (["replica_a", "replica_b"], ["a1", "a2", "b1", "b2"])
    assert (done["event"], done["wave"], done["outcome"], done["causes"], done["next"]) == (
        "roll_done",
        2,
        "done",
        [],
        "",
    )
    assert begun["run"] == done["run"] == project.runs[0].name
    assert begun["text"].startswith("Lockstep: upgrade_driver ")
    assert begun["text"].endswith("begins: replica_a, replica_b, in 2 waves")
    for headers, body, seen in receiver.got:
        assert seen == []
        assert headers["Authorization"] == BEARER
        assert (
            headers["X-Lockstep-Signature"] == "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        )
        assert headers["X-Lockstep-Delivery"] == f"{begun['run']}/{json.loads(body)['event']}"
    everything = left_behind(project, run.stdout.read())
    assert [secret for secret in (SECRET, BEARER, IN_URL) if secret in everything] == []
    assert "webhook" not in everything


def test_a_roll_that_fails_says_why_and_what_to_type(project: Project) -> None:
    with receiving() as receiver:
        configure_webhook(project, receiver.url)
        run = project.run(BAD)
        receiver.until(2)
    assert run.rc != 0
    begun, failed = receiver.messages
    jsonschema.validate(failed, SCHEMA)
    assert (begun["event"], failed["event"], failed["outcome"], failed["wave"]) == (
        "roll_begun",
        "roll_failed",
        "failed",
        2,
    )
    assert {(each["host"], each["step"]) for each in failed["causes"]} == {("b1", "gates"), ("b2", "gates")}
    assert {each["cause"] for each in failed["causes"]} == {"graph capture hangs when two hosts take part"}
    assert "playbooks/diagnose.yml" in failed["next"] or "diagnose" in failed["next"]


@pytest.mark.parametrize(
    ("answers", "hangs", "missed"),
    [
        pytest.param((500,), False, "roll_begun: answered 500", id="a receiver that fails"),
        pytest.param((302,), False, "roll_begun: answered 302", id="a redirect is not followed"),
        # Which a run says that waited so long at its end, and no longer.
        pytest.param((204,), True, f"not delivered within {webhook.WAIT:g} s", id="a receiver that hangs"),
    ],
)
def test_a_bad_receiver_changes_nothing_for_the_run(
    answers: tuple[int, ...], hangs: bool, missed: str, project: Project
) -> None:
    with receiving(answers, hangs) as receiver:
        configure_webhook(project, receiver.url)
        run = project.run(GOOD)
        text = run.stdout.read()
        assert run.rc == 0, text
        shown = " ".join(text.split())
        assert "the webhook has missed a message" in shown, text
        assert missed in shown, text
        assert IN_URL not in left_behind(project, text)
        assert {message["event"] for message in receiver.messages} <= {"roll_begun", "roll_done"}


def test_nobody_listens(project: Project) -> None:
    configure_webhook(project, f"http://127.0.0.1:9/{IN_URL}")
    run = project.run(GOOD)
    assert run.rc == 0
    text = run.stdout.read()
    assert "the webhook has missed a message" in " ".join(text.split()), text
    assert IN_URL not in left_behind(project, text)


def test_a_message_that_was_lost_is_sent_again(project: Project) -> None:
    with receiving((503, 204)) as receiver:
        configure_webhook(project, receiver.url)
        run = project.run(GOOD)
        receiver.until(3)
    assert run.rc == 0
    assert [message["event"] for message in receiver.messages] == ["roll_begun", "roll_begun", "roll_done"]
    assert "webhook" not in run.stdout.read()


def test_a_controller_that_is_killed_is_reported_all_the_same(project: Project) -> None:
    waits = step("driver", report("Install driver packages"), {"name": "Go on", "ansible.builtin.command": "sleep 3"})
    path = project.playbook(
        [PLANNED, BEFORE, play("a1", waits, {"name": "Wait", "ansible.builtin.pause": {"seconds": 60}})]
    )
    with receiving() as receiver:
        configure_webhook(project, receiver.url)
        process = subprocess.Popen(
            [Path(sys.executable).with_name("ansible-playbook"), "-i", project.folder / "inventory.yml", path],
            cwd=project.folder,
            env=project.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            receiver.until(1)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        receiver.until(2)
    begun, failed = receiver.messages
    jsonschema.validate(failed, SCHEMA)
    assert (begun["event"], failed["event"], failed["outcome"]) == ("roll_begun", "roll_failed", "unfinished")
    assert "ansible-playbook" in failed["next"]
    assert failed["at"] >= begun["at"][:19]


@pytest.mark.parametrize(
    ("plays", "cmdline"), [pytest.param(GOOD, "--check", id="a dry run"), pytest.param([BEFORE], "", id="no roll")]
)
def test_a_run_that_changes_nothing_tells_nobody(plays: list[dict[str, Any]], cmdline: str, project: Project) -> None:
    with receiving() as receiver:
        configure_webhook(project, receiver.url)
        assert project.run(plays, cmdline=cmdline).rc == 0
    assert receiver.got == []


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"rollout_webhook_url": f"file:///{IN_URL}"}, "rollout_webhook_url is no http or https URL; nothing is sent"),
        ({"rollout_webhook_url": f"{{{{ missing }}}}{IN_URL}"}, "cannot be templated; nothing is sent"),
        ({"rollout_webhook_headers": [BEARER]}, "rollout_webhook_headers is no dictionary; nothing is sent"),
    ],
)
def test_what_cannot_be_meant_is_said_once_without_its_value(
    variables: dict[str, Any], said: str, project: Project
) -> None:
    configure_webhook(project, "http://127.0.0.1:9/", **variables)
    run = project.run(GOOD)
    text = " ".join(run.stdout.read().split())
    assert run.rc == 0
    assert text.count(said) == 1, text
    assert [secret for secret in (SECRET, BEARER, IN_URL) if secret in text] == []


@pytest.mark.parametrize(
    ("problems", "attempts", "left"),
    [([""], 1, ""), (["x", ""], 2, ""), (["x", "y", ""], 3, ""), (["x", "y", "z", ""], 3, "z")],
)
def test_three_attempts(problems: list[str], attempts: int, left: str) -> None:
    made: list[str] = []

    def send(_where: dict[str, Any], _message: dict[str, Any]) -> str:
        made.append(problems[len(made)])
        return made[-1]

    assert webhook_sender.deliver({}, {}, send, lambda _seconds: None) == left
    assert len(made) == attempts


def test_the_signature_is_hmac_sha256() -> None:
    """The second test case of RFC 4231."""
    found = webhook_sender.signature("Jefe", b"what do ya want for nothing?")
    assert found == "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


def test_settings_without_a_url_are_none() -> None:
    assert webhook.Settings.parse({"rollout_webhook_secret": SECRET}) is None
