"""The engine that this host is configured to run, as a client reaches it: what is asked, where, and what has to be answered.

Read on the host, not taken from the inventory: before a change and after a rollback, the host runs other settings than the
inventory declares.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..core import host_record, records
from . import completion
from . import config as engine_config
from .completion import Completion

API_KEY = records.ETC / "vllm-api-key"


@dataclasses.dataclass(frozen=True)
class Target:
    """What a completion needs; ``api_key`` is in no representation of it."""

    url: str
    ready_url: str
    model: str
    prompt: str
    expected: str | None
    api_key: str | None = dataclasses.field(repr=False)
    max_tokens: int
    deadline: float

    def prove(self) -> Completion:
        """Have it generate; whatever it does is in the result."""
        return completion.prove(
            self.url,
            self.model,
            self.prompt,
            self.expected,
            self.api_key,
            self.deadline,
            max_tokens=self.max_tokens,
        )


def target() -> Target:
    """The engine of this host.

    Raises:
        RecordError: this host is not configured to run one, or the configuration is damaged.
    """
    config = read()
    if config is None:
        raise records.RecordError(f"{records.ENGINE_CONFIG} does not exist", "ansible-playbook site.yml")
    address = host_record.api_address(host_record.require())
    return Target(
        url=f"http://{address}:{config.ports.api}",
        ready_url=f"http://{address}:{config.ports.ready}",
        model=config.served_model_name,
        prompt=config.proof.prompt,
        expected=config.proof.answer,
        api_key=_secret(API_KEY),
        max_tokens=config.proof.max_tokens,
        deadline=config.proof.deadline,
    )


def read() -> engine_config.Config | None:
    """The configuration of this host's engine; None where there is none.

    Raises:
        RecordError: it is damaged.
    """
    stored = records.read(records.ENGINE_CONFIG)
    if stored is None:
        return None
    try:
        return engine_config.parse(stored)
    except engine_config.ConfigError as error:
        raise records.RecordError(f"{records.ENGINE_CONFIG}: {error}", "ansible-playbook site.yml") from error


def serving_deadline() -> float | None:
    """Seconds until the configured engine must serve, at the worst; None without one.

    Raises:
        RecordError: the configuration is damaged.
    """
    config = read()
    return None if config is None else config.serving_deadline()


def _secret(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise records.RecordError(f"{path}: cannot be read: {error}") from error
