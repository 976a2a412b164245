"""The variables that Lockstep takes: those of its roles and of its playbooks. What else bears such a name is a mistake."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import itertools
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import yaml

from ansible_collections.lockstep.vllm.plugins.module_utils.gates.request import CAPTURED
from ansible_collections.lockstep.vllm.plugins.modules import plan, rollout_lock, status
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import settings

ROLES = (*settings.HOST_ROLES, *settings.ROUTER_ROLES, "admission")
PREFIXES = (*(f"{role}_" for role in ROLES), "rollout_", "diagnose_", "verify_", "status_")
"""How the names of our variables begin."""
MOST_SLIPS = 2
"""Letters wrong, missing, too many or swapped, with which a name still is a known one misspelt; one where what follows the
prefix is short, as two slips make another word of ``order``."""
_SHORT = 8


def _options(module: Any) -> dict[str, settings.Option]:
    options: dict[str, settings.Option] = yaml.load(module.DOCUMENTATION, Loader=settings.YAML)["options"]
    return options


@functools.cache
def of_playbooks() -> Mapping[str, settings.Option]:
    """The playbooks' own variables with their options, as an argument_spec has them.

    Most are options of an action, whose documentation is their one home; five are of plays alone (documented in plan's notes).
    """
    planned, lock = _options(plan), _options(rollout_lock)
    return MappingProxyType({
        **{f"rollout_{name}": option for name, option in planned["policy"]["suboptions"].items()},
        "rollout_action": planned["action"],
        "rollout_lock_take_over": lock["take_over"],
        "rollout_lock_without": lock["without"],
        **{f"status_{name}": option for name, option in _options(status).items()},
        # Read by the callback plugin rollout.
        "rollout_webhook_url": {
            "type": "str", "no_log": True,
            "description": "Whom to tell that a roll begins, has failed or is done: C(docs/reference/webhook.md).",
        },
        "rollout_webhook_secret": {
            "type": "str", "no_log": True, "description": "Key of the signature that each message has in X-Lockstep-Signature.",
        },
        "rollout_webhook_headers": {
            "type": "dict", "no_log": True, "description": "More headers of each message, such as Authorization.",
        },
        "diagnose_capture": {
            "type": "list", "elements": "str", "choices": list(CAPTURED), "default": list(CAPTURED),
            "description": "What the graph gate of diagnose.yml captures.",
        },
        "diagnose_deadline": {
            "type": "float", "default": 120, "description": "Seconds after which a gate of diagnose.yml is a timeout.",
        },
        "diagnose_disturb": {
            "type": "bool", "default": False, "description": "diagnose.yml stops the engine for the gates that need GPUs.",
        },
        "rollout_task_deadline": {
            "type": "int",
            "description": "Seconds after which any one task on any one host has failed, whatever keeps it. An hour, and a "
            "day where tasks wait as long as their roles' deadlines say: in the waves, for drivers' packages and models, in "
            "C(remove.yml). By the command line alone.",
        },
        "verify_disturb": {
            "type": "bool", "default": False, "description": "verify.yml takes replicas out of service to run every gate.",
        },
    })  # fmt: skip


@functools.cache
def options() -> Mapping[str, settings.Option]:
    """Every variable with its option; verbs that share a variable agree about it (tests/unit/test_argument_specs.py)."""
    found = dict(of_playbooks())
    for role in ROLES:
        for entry in settings.argument_specs(role).values():
            found |= entry.get("options", {})
    return MappingProxyType(found)


def beside_roles(extra: Collection[str]) -> tuple[str, ...]:
    """The variables to check wherever they are set, whatever roles a host has.

    Those of role admission, those of the playbooks, and those of ours that the command line sets (``extra``).
    """
    return (*settings.public_variables("admission"), *of_playbooks(), *(name for name in extra if name in options()))


@functools.cache
def required(roles: tuple[str, ...]) -> tuple[str, ...]:
    """What must be set for a host of these ``roles``: what the verbs need that give it its configuration.

    Other verbs need nothing more, but what the plays pass them.
    """
    entries = [settings.argument_specs(role).get(verb, {}) for role in roles for verb in ("configure", "install")]
    named = {name: option for entry in entries for name, option in entry.get("options", {}).items()}
    return tuple(sorted(name for name, option in named.items() if option.get("required")))


@functools.cache
def computed() -> frozenset[str]:
    """The variables whose default is worked out of others: it may be wrong although nobody set it."""
    return frozenset(
        name
        for role in ROLES
        for name, value in settings.written_defaults(role).items()
        if "{{" in yaml.safe_dump(value)
    )


@dataclasses.dataclass(frozen=True)
class Unknown:
    """A name that no variable of ours has.

    Attributes:
        name: that name.
        meant: the known one that it resembles; None where there is none.
        slip: whether it is that one misspelt, rather than a name of its own.
    """

    name: str
    meant: str | None
    slip: bool

    def __str__(self) -> str:
        if self.slip:
            return f"there is no variable {self.name}: did you mean {self.meant}?"
        hint = f"; did you mean {self.meant}?" if self.meant else ""
        return f"{self.name} is set, and Lockstep has no such variable: it does nothing{hint}"


@functools.cache
def unknown(name: str) -> Unknown | None:
    """What a name is that may be a mistake: one of ours misspelt, or one under a prefix of ours; None for all others."""
    if name in options() or name.startswith(("ansible_", "_")):
        return None
    folded = name.lower().replace("-", "_")
    for known, pieces in _pieces().items():
        near = abs(len(known) - len(folded)) <= MOST_SLIPS and any(piece in folded for piece in pieces)
        if near and distance(folded, known) <= _slips(folded, known):
            return Unknown(name, known, slip=True)
    prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
    if prefix is None:
        return None
    ours = [known.removeprefix(prefix) for known in options() if known.startswith(prefix)]
    close = difflib.get_close_matches(name.removeprefix(prefix), ours, n=1, cutoff=0.7)
    return Unknown(name, prefix + close[0] if close else None, slip=False)


def _slips(name: str, known: str) -> int:
    """How many slips may lie between a name and the known one."""
    prefix = next(prefix for prefix in PREFIXES if known.startswith(prefix))
    return 1 if name.startswith(prefix) and len(known) - len(prefix) < _SHORT else MOST_SLIPS


@functools.cache
def _pieces() -> Mapping[str, tuple[str, ...]]:
    """Each known name in five pieces: a slip harms two at most, so a misspelt name still holds one of them.

    Looking for a piece is a hundred times faster than the distance, and inventories have hundreds of names.
    """
    cuts = {name: [round(len(name) * part / 5) for part in range(6)] for name in options()}
    return {name: tuple(name[start:end] for start, end in itertools.pairwise(cut)) for name, cut in cuts.items()}


def distance(one: str, other: str) -> int:
    """Letters to change, insert, leave out or swap with their neighbour to make ``other`` of ``one``."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, mine in enumerate(one, 1):
        row = [i]
        for j, theirs in enumerate(other, 1):
            least = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (mine != theirs))
            if i > 1 and j > 1 and mine == other[j - 2] and one[i - 2] == theirs:
                least = min(least, before[j - 2] + 1)
            row.append(least)
        before, last = last, row
    return last[-1]


def unknown_among(names: Iterable[str]) -> list[Unknown]:
    """Those of ``names`` that may be a mistake, in their order."""
    return [found for name in names if (found := unknown(name)) is not None]
