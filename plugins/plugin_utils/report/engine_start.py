"""How an engine came up its ladder: what a task on its head returns, and what the journal keeps of it."""

from __future__ import annotations

import dataclasses

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.fields import Given, mapping, mappings, read

_MOST_RUNGS = 10
_CODES = ("ready", "deadline", "hopeless")


@dataclasses.dataclass(frozen=True)
class Rung:
    """A rung that was tried.

    Attributes:
        name: ``none``, ``piecewise`` or ``full``.
        verdict: ``proven`` or ``failed``.
        note: why it failed, or a remark on its proof.
        seconds: that its start took; 0 where it is not known.
        at: when it was tried, RFC 3339: an earlier run may have.
    """

    name: str
    verdict: str
    note: str = ""
    seconds: float = 0.0
    at: str = ""


@dataclasses.dataclass(frozen=True)
class EngineStart:
    """A start of an engine, of all that the supervisor tried until it served or the wait for it ended.

    Attributes:
        code: ``ready``, or why the wait ended: ``deadline``, ``hopeless``.
        rung: on which it serves, or which was tried last.
        rungs: those that were tried, lowest first.
        reason: why it does not serve; empty where it does.
    """

    code: str
    layout: str = ""
    tensor_parallel_size: int = 0
    pipeline_parallel_size: int = 0
    rung: str = ""
    rungs: tuple[Rung, ...] = ()
    reason: str = ""

    @classmethod
    def parse(cls, result: Given) -> EngineStart | None:
        """From a result of lockstep.vllm.engine_state; None where it waited for no start."""
        engine = mapping(result.get("engine"))
        if "phase" not in engine or result.get("code") not in _CODES:
            return None
        ladder = list(mapping(engine.get("ladder")).items())[:_MOST_RUNGS]
        rungs = [{**mapping(state), "name": name} for name, state in ladder]
        return cls.of_event({**engine, "code": result["code"], "rungs": rungs, "reason": result.get("reason")})

    @classmethod
    def of_event(cls, event: Given) -> EngineStart:
        rungs = mappings(event.get("rungs"))[:_MOST_RUNGS]
        return read(cls, event, rungs=tuple(read(Rung, rung) for rung in rungs))

    def as_event(self, elapsed: float, host: str, replica: str) -> dict[str, object]:
        return {
            **dataclasses.asdict(self),
            "host": host,
            "replica": replica,
            "event": "engine_start",
            "elapsed": elapsed,
        }

    @property
    def serves(self) -> bool:
        return self.code == "ready"
