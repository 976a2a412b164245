"""The optimisation ladder: which rung to try next, and whether a rung's completions are those of the eager engine.

Graph capture and replay are what hang in the field (vllm-project/vllm #17167, #52504, #46253), so an engine starts eager
first, whose tokens the other rungs are held against. Then it starts on the top rung, and on one below only where the top
fails: two starts on a healthy host. What was learnt is kept on the head, keyed by the fingerprint of the replica and by what
the engine was asked to run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ..core import typed
from ..core.codes import as_json
from .completion import Token
from .record import RungState
from .states import EndCode, Verdict

Rung = Literal["none", "piecewise", "full"]

RUNGS: tuple[Rung, ...] = ("none", "piecewise", "full")

# Two tokens whose log probabilities lie closer than this are a tie: compiled kernels round otherwise than eager ones, and
# at bf16 (8 bits of mantissa) logits around 20 are 0.125 apart. A wrong collective moves logits by far more.
TIE = 0.25

_MODES: dict[Rung, str] = {"piecewise": "PIECEWISE", "full": "FULL_AND_PIECEWISE"}
_RUNG_OF_MODE: dict[str, Rung] = {
    "PIECEWISE": "piecewise",
    "FULL": "full",
    "FULL_DECODE_ONLY": "full",
    "FULL_AND_PIECEWISE": "full",
}
"""vLLM's cudagraph modes (0.32: config/compilation.py), and the rung on which each runs."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """What became of one rung.

    Attributes:
        code: how it ended; OK when proven.
        cause: for people; empty when proven.
        seconds: from the start of the process to the verdict.
        evidence: absolute paths on the head.
        at: when, RFC 3339.
    """

    verdict: Verdict
    code: EndCode = EndCode.OK
    cause: str = ""
    seconds: float = 0.0
    evidence: tuple[str, ...] = ()
    at: str = ""


@dataclasses.dataclass(frozen=True)
class Ladder:
    """What is known of the rungs of one layout, for one key.

    Attributes:
        key: what this knowledge is valid for, see :func:`key`.
        trials: rung to what became of it.
        baseline: prompt to the eager engine's tokens.
        platform: ``cuda`` or ``cpu``; on CPU no graph is captured, a rung there proves torch.compile only.
    """

    key: str
    trials: Mapping[Rung, Trial] = dataclasses.field(default_factory=dict)
    baseline: Mapping[str, tuple[Token, ...]] = dataclasses.field(default_factory=dict)
    platform: str = ""


def rung_arguments(rung: Rung, mode: str | None = None) -> dict[str, Any]:
    """vLLM's arguments for a rung (vLLM 0.32: ``--enforce-eager``, ``--compilation-config.cudagraph_mode``).

    Args:
        mode: the cudagraph mode that the operator asks for, which is the top rung's; None for the rung's own.
    """
    if rung == "none":
        return {"enforce_eager": True}
    own = mode if mode is not None and _RUNG_OF_MODE[mode] == rung else _MODES[rung]
    return {"compilation_config": {"cudagraph_mode": own}}


def rungs(ladder: Sequence[Rung], mode: str | None) -> tuple[Rung, ...]:
    """The rungs of ``vllm_server_ladder``, up to that of the cudagraph mode that the operator asks for.

    Args:
        mode: as :func:`mode_problem` passes it, or None.
    """
    top = RUNGS.index(_RUNG_OF_MODE[mode]) if mode is not None else len(RUNGS)
    return tuple(rung for rung in ladder if RUNGS.index(rung) <= top)


def mode_problem(ladder: Sequence[Rung], mode: str) -> str:
    """Why an operator's own cudagraph mode cannot be the top rung; empty when it can. ``[none]`` alone passes: it says
    eager, whatever the mode is."""
    if mode == "NONE":
        return "sets cudagraph_mode NONE; use vllm_server_ladder: [none] instead"
    if mode not in _RUNG_OF_MODE:
        return f"sets cudagraph_mode {mode}: choose from {', '.join(_RUNG_OF_MODE)}"
    rung = _RUNG_OF_MODE[mode]
    if rung not in ladder and tuple(ladder) != ("none",):
        wanted = [allowed for allowed in RUNGS if allowed in ladder or allowed == rung]
        given, right = ", ".join(ladder), ", ".join(wanted)
        return f"sets cudagraph_mode {mode}, of rung {rung}, and vllm_server_ladder is [{given}]; use [{right}]"
    return ""


def key(hosts: Mapping[str, str], command: Sequence[str]) -> str:
    """What a ladder's knowledge holds for: the fingerprints of the replica's hosts and vLLM's command, as 16 hex digits.

    Args:
        hosts: host to fingerprint digest, as in the replica stamp.
        command: vLLM's command line on the lowest rung.
    """
    text = json.dumps([dict(sorted(hosts.items())), list(command)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def next_rung(allowed: Sequence[Rung], trials: Mapping[Rung, Trial]) -> Rung | None:
    """The rung to start now: the lowest while it is untried, then the highest that has not failed; None when not even
    the lowest one holds."""
    if allowed[0] not in trials:
        return allowed[0]
    for rung in reversed(allowed):
        trial = trials.get(rung)
        if trial is None or trial.verdict is not Verdict.FAILED:
            return rung
    return None


def completed(allowed: Sequence[Rung], trials: Mapping[Rung, Trial]) -> bool:
    """Whether the rung to start now was tried before, or there is none."""
    rung = next_rung(allowed, trials)
    return rung is None or rung in trials


def blames(rung: Rung, allowed: Sequence[Rung], trials: Mapping[Rung, Trial], code: EndCode, failures: int) -> bool:
    """Whether a failure counts against the rung, so that the one below serves from now on.

    The lowest rung is never blamed, since nothing lies below it, and a lost host is nobody's fault. A rung on trial gets
    one chance; one that was proven before gets two, as graphs that replay well for hours may still deadlock.

    Args:
        code: how the engine ended.
        failures: how often it failed on this rung in a row, this time included.
    """
    if rung == allowed[0] or code is EndCode.MEMBERS_LOST:
        return False
    return rung not in trials or failures >= 2


def with_trial(ladder: Ladder, rung: Rung, trial: Trial) -> Ladder:
    return dataclasses.replace(ladder, trials={**ladder.trials, rung: trial})


def difference(baseline: Sequence[Token], got: Sequence[Token], tie: float = TIE) -> str:
    """How a completion differs from the eager one, for people; empty when it does not.

    Greedy completions of two correct engines part ways where two tokens are as good as equally likely. There the
    comparison ends in favour of the rung; anywhere else a different token is a wrong result.

    Args:
        tie: natural-logarithm distance under which two tokens count as equally likely.
    """
    for place, (expected, got_token) in enumerate(zip(baseline, got, strict=False)):
        if expected.text == got_token.text:
            continue
        if _tied(expected, got_token.text, tie):
            return ""
        return f"token {place} is {got_token.text!r}, eager gave {expected.text!r}{_distance(expected, got_token.text)}"
    if len(baseline) != len(got):
        return f"{len(got)} tokens, eager gave {len(baseline)}"
    return ""


def _tied(expected: Token, other: str, tie: float) -> bool:
    rival = expected.alternatives.get(other)
    return expected.logprob is not None and rival is not None and abs(expected.logprob - rival) <= tie


def _distance(expected: Token, other: str) -> str:
    rival = expected.alternatives.get(other)
    if expected.logprob is None or rival is None:
        return ""
    return f" ({expected.logprob - rival:.2f} nat likelier)"


def shown(ladder: Ladder) -> dict[str, RungState]:
    """What is known of each rung, lowest first, for people."""
    on_cpu = "on CPU: torch.compile, no graph is captured" if ladder.platform == "cpu" else ""
    known = {rung: ladder.trials[rung] for rung in RUNGS if rung in ladder.trials}
    return {
        rung: RungState(
            trial.verdict,
            trial.cause if trial.verdict is Verdict.FAILED else on_cpu if rung != "none" else "",
            trial.seconds,
            trial.at,
        )
        for rung, trial in known.items()
    }


def as_record(ladder: Ladder) -> dict[str, Any]:
    """JSON form of a ladder, as ladder.json keeps it per layout."""
    record: dict[str, Any] = as_json(ladder)
    return {**record, "rungs": record.pop("trials")}


def from_record(record: Mapping[str, Any] | None, current_key: str) -> Ladder:
    """The ladder in ``record``, or an empty one where there is none or what it knew is void by now."""
    if not record or record.get("key") != current_key:
        return Ladder(current_key)
    try:
        return typed.parse(Ladder, {**record, "trials": record.get("rungs")}, typed.NEWER)
    except typed.BadAnswer:
        return Ladder(current_key)
