"""What clients of a cluster need, and the proof that they will get it: parsed as everything of a report is."""

from __future__ import annotations

import dataclasses
import json
import shlex

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.fields import Given, number, text

_TEXT_LENGTH = 200


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where clients reach a replica, or all of them through a router.

    Attributes:
        name: the replica, or the host of the router.
        router: whether it is one.
        url: up to and with ``/v1``.
        model: the name that clients ask for.
        key: whether they need the key of the API.
        prompt, max_tokens: of the completion that proves a replica.
        ca: the file by which its certificate is checked; empty where the machine knows who signed it, or there is none.
    """

    name: str
    router: bool
    url: str
    model: str
    key: bool = False
    prompt: str = ""
    max_tokens: int = 16
    ca: str = ""

    @property
    def key_command(self) -> str:
        """A command that has the inventory say the API's key, for :attr:`curl`; empty where it needs none."""
        if not self.key:
            return ""
        one_host = shlex.quote("lockstep[0]" if self.router else f"{self.name}[0]")
        said = f"ansible {one_host} -m ansible.builtin.debug -a 'msg={{{{ vllm_server_api_key }}}}'"
        # As JSON or as YAML, whichever the configuration has results shown.
        return f"""export VLLM_API_KEY=$({said} | sed -n 's/^ *"*msg"*: //p' | tr -d "\\"'")"""

    @property
    def curl(self) -> str:
        """A command that asks it for a completion. It holds no key: :attr:`key_command` brings that."""
        body = {"model": self.model, "prompt": self.prompt or "Hello", "max_tokens": self.max_tokens, "temperature": 0}
        trusted = ["--cacert", self.ca] if self.ca else []
        words = ["curl", "-s", *trusted, f"{self.url}/completions", "-H", "Content-Type: application/json"]
        key = ' -H "Authorization: Bearer $VLLM_API_KEY"' if self.key else ""
        return f"{shlex.join(words)}{key} -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"


@dataclasses.dataclass(frozen=True)
class Completion:
    """A completion that a replica generated."""

    text: str
    seconds: float = 0.0

    @classmethod
    def parse(cls, given: Given) -> Completion | None:
        """``completion`` of a result; None where there is none, or it failed."""
        generated = text(given.get("text"), _TEXT_LENGTH)
        return cls(generated, number(given.get("seconds"))) if given.get("ok") is True and generated else None
