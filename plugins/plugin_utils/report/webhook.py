"""What a webhook is sent of a roll: begun, failed, done. docs/reference/webhook.md has the message."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.events import Event, RunPlan
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.fields import Given

SENDER = Path(__file__).with_name("webhook_sender.py")
VARIABLES = ("rollout_webhook_url", "rollout_webhook_secret", "rollout_webhook_headers")
WAIT = 5.0
"""Seconds that the end of a run waits for what is still to be delivered; the sender goes on without the run after that."""
MOST_CAUSES = 5
ABOUT = ("playbook", "controller", "user", "command")
"""Of ``run_started``: what every message says beside the run's name; ``command`` is the next one where the run was killed."""
Name = Literal["roll_begun", "roll_failed", "roll_done"]
Message = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where to: all of it may be secret.

    Attributes:
        url: of the receiver.
        secret: key of the signature; empty for none.
        headers: more headers, such as Authorization.
    """

    url: str
    secret: str = ""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def parse(cls, values: Given) -> Settings | None:
        """From the variables; None where no URL is set.

        Raises:
            ValueError: they cannot be meant; names no value.
        """
        url, secret, headers = (values.get(name) for name in VARIABLES)
        if not url:
            return None
        try:
            parts = urlsplit(str(url))
            fit = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            fit = False
        if not fit:
            raise ValueError("rollout_webhook_url is no http or https URL; nothing is sent")
        if headers is not None and not isinstance(headers, Mapping):
            raise ValueError("rollout_webhook_headers is no dictionary; nothing is sent")
        return cls(str(url), str(secret or ""), {str(key): str(value) for key, value in (headers or {}).items()})


class Teller:
    """Follows a run's events; pure. ``about`` is what every message says: run, playbook, controller, user."""

    def __init__(self, about: Given) -> None:
        self._about = dict(about)
        self._begun = False
        self._wave: int | None = None
        self._causes: list[Message] = []

    def follow(self, event: Event, plan: RunPlan) -> Message | None:
        """The message that an event makes; None for most of them."""
        kind = event["event"]
        if kind == "wave_started":
            self._wave = event["wave"]
        if kind == "failed" and len(self._causes) < MOST_CAUSES:
            self._causes.append({key: event.get(key) for key in ("host", "step", "cause")})
        if kind in ("step_started", "wave_started") and plan.waves and not self._begun:
            self._begun = True
            return self._message("roll_begun", event, plan, None)
        if kind == "run_ended" and self._begun:
            return self._message(
                "roll_done" if event["outcome"] == "done" else "roll_failed", event, plan, event["outcome"]
            )
        return None

    def if_killed(self, event: Event, plan: RunPlan) -> Message:
        """What is to be said where nothing more comes of this run."""
        return self._message("roll_failed", {**event, "next": self._about.get("command")}, plan, "unfinished")

    def _message(self, name: Name, event: Event, plan: RunPlan, outcome: str | None) -> Message:
        replicas = [replica for wave in plan.waves for replica in wave.replicas]
        who = f"{self._about.get('playbook')} {self._about.get('run')} on {self._about.get('controller')}"
        said = {
            "roll_begun": f"begins: {', '.join(replicas)}, in {len(plan.waves)} waves",
            "roll_done": "is done",
            "roll_failed": f"has failed ({outcome})",
        }[name]
        return {
            "schema": 1,
            "event": name,
            "at": event.get("at"),
            "elapsed": event["elapsed"],
            **{key: value for key, value in self._about.items() if key != "command"},
            "outcome": outcome,
            "waves": len(plan.waves),
            "wave": self._wave,
            "replicas": replicas,
            "hosts": [host for wave in plan.waves for host in wave.hosts],
            "causes": [] if name == "roll_done" else list(self._causes),
            "next": event.get("next") or "",
            "text": f"Lockstep: {who} {said}",
        }


class Webhook:
    """A running sender. Nothing here waits for a receiver, but :meth:`close`, for a few seconds."""

    def __init__(self, settings: Settings) -> None:
        # In a session of its own: it outlives ctrl-C and the loss of the controller's process, and says that it happened.
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(SENDER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._write(dataclasses.asdict(settings))

    def tell(self, message: Message, if_killed: Message | None) -> None:
        """Hand over a message, and the one to send where no further one comes."""
        self._write({"message": message, "if_killed": if_killed})

    def close(self, wait: float = WAIT) -> str:
        """No more messages come. Returns what was not delivered, as far as it is known by then."""
        try:
            answer, _errors = self._process.communicate(timeout=wait)
        except subprocess.TimeoutExpired as late:
            waiting = f"not delivered within {wait:g} s; it is tried for some seconds more"
            known = _one_line(late.output or b"")
            return f"{known}; another {waiting}" if known else waiting
        except (OSError, ValueError):
            return "its sender has ended"
        return _one_line(answer)

    def _write(self, what: Message) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # close() says what became of it
                self._process.stdin.write(json.dumps(what, default=str).encode() + b"\n")
                self._process.stdin.flush()


def _one_line(said: bytes) -> str:
    return "; ".join(said.decode("utf-8", "replace").split("\n")).strip("; ")
