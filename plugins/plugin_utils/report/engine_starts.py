"""The starts of a run's engines, as the report shows them: replicas that came up alike in one row. Pure."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence

from ansible_collections.lockstep.vllm.plugins.module_utils.core import wording
from ansible_collections.lockstep.vllm.plugins.module_utils.core.grouping import grouped
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import words
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.engine_start import EngineStart, Rung
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.served import Completion
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.timeline import Start, Timeline


@dataclasses.dataclass(frozen=True)
class RungLine:
    """A rung that was tried.

    Attributes:
        became: ``holds``, ``failed``; whether this run tried it is said where it did not.
        why: why it failed, or a remark; took: how long its start took.
        good: whether it holds.
        serves: whether the engine serves on it.
    """

    name: str
    became: str
    why: str
    took: str
    good: bool
    serves: bool


@dataclasses.dataclass(frozen=True)
class StartRow:
    """Replicas whose engines came up alike.

    Attributes:
        layout: its name and sizes.
        reached: the rung that they serve on; empty where they do not serve.
        reason: why they do not serve; empty where they do.
        answered: what they generated to prove it, by the first of them.
    """

    replicas: tuple[str, ...]
    layout: str
    reached: str
    serves: bool
    reason: str
    rungs: tuple[RungLine, ...]
    answered: Completion | None


def alike(run: Timeline) -> list[StartRow]:
    """In order of the first of each kind; a replica that was started twice, as by a rollback, is in two rows."""
    found = grouped((_kind(start.engine), start) for start in run.starts)
    return [_row(starts, run.start.at, run.on_cpu) for starts in found.values()]


def _kind(engine: EngineStart) -> tuple[object, ...]:
    rungs = tuple((rung.name, rung.verdict, rung.note) for rung in engine.rungs)
    return engine.code, engine.layout, engine.rung, rungs, engine.reason


def _row(starts: Sequence[Start], began: str, on_cpu: bool) -> StartRow:
    engine = starts[0].engine
    return StartRow(
        replicas=tuple(dict.fromkeys(start.replica for start in starts)),
        layout=_layout(engine),
        reached=words.rung(engine.rung, on_cpu) if engine.serves else "",
        serves=engine.serves,
        reason=engine.reason,
        rungs=tuple(
            _line(
                [start.engine.rungs[n] for start in starts], engine.serves and rung.name == engine.rung, began, on_cpu
            )
            for n, rung in enumerate(engine.rungs)
        ),
        answered=next((start.completion for start in starts if start.completion), None),
    )


def _line(rungs: Sequence[Rung], serves: bool, began: str, on_cpu: bool) -> RungLine:
    first = rungs[0]
    good = first.verdict == "proven"
    known = all(_before(rung.at, began) for rung in rungs)
    took = sorted(rung.seconds for rung in rungs if rung.seconds)
    spans = list(dict.fromkeys(wording.span(each) for each in (took[:1] + took[-1:])))
    return RungLine(
        name=words.rung(first.name, on_cpu),
        became=("holds" if good else "failed") + (", by an earlier run" if known else ""),
        why=first.note,
        took=" to ".join(spans),
        good=good,
        serves=serves,
    )


def _layout(engine: EngineStart) -> str:
    sizes = (engine.tensor_parallel_size, engine.pipeline_parallel_size)
    size = f"TP {sizes[0]} × PP {sizes[1]}" if all(sizes) else ""
    return f"{engine.layout} ({size})" if engine.layout and size else engine.layout or size


def _before(moment: str, began: str) -> bool:
    """Whether it lies before; False where either is no time."""
    try:
        return datetime.datetime.fromisoformat(moment) < datetime.datetime.fromisoformat(began)
    except (ValueError, TypeError):
        return False
