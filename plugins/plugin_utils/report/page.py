"""The report of a run: one HTML page that carries all it needs, from the events of its journal alone.

Pure: events in, text out; ``report.html.j2`` lays it out, ``report.css`` stands in it. The page runs no script and fetches
nothing, reads on a phone, prints, and follows the reader's light or dark setting.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jinja2
import markupsafe

from ansible_collections.lockstep.vllm.plugins.module_utils.core import wording
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import picture, timeline
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.events import Failure, GateEvent, RunOutcome
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.journal import EVIDENCE, evidence_name
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.timeline import Event, Row, Timeline

STYLE = Path(__file__).with_name("report.css")
Tone = Literal["good", "bad", "warn", "calm"]
_TONE: dict[RunOutcome, Tone] = {
    "done": "good",
    "nothing_to_do": "good",
    "checked": "calm",
    "refused": "bad",
    "failed": "bad",
    "interrupted": "warn",
    "unfinished": "warn",
}


class Chip(NamedTuple):
    """A state in brief, and how good it is."""

    tone: Tone
    text: str


class Figure(NamedTuple):
    name: str
    value: str
    detail: str = ""


class Evidence(NamedTuple):
    """A file on a host; ``link`` leads to the copy beside the page, empty where there is none."""

    name: str
    link: str


def fetched_evidence(folder: Path) -> frozenset[str]:
    """Evidence that lies beside the report as ``evidence/<host>/<path on the host>``: those relative paths."""
    return frozenset(path.relative_to(folder).as_posix() for path in (folder / EVIDENCE).rglob("*"))


def render(events: Sequence[Event], fetched: Collection[str] = ()) -> str:
    """The page.

    Args:
        events: a journal, or any beginning of one.
        fetched: paths relative to the page of evidence that can be linked; other evidence is named by host and path.
    """
    run = timeline.build(events)
    return _template().render(
        run=run,
        subject=(run.start.playbook or "run").replace("_", " ").capitalize(),
        headline=headline(run),
        tone=_TONE[run.outcome],
        figures=_figures(run),
        failures=_alike(run.failures),
        evidence=functools.partial(_evidence, fetched),
        state=functools.partial(_state, run),
        reasons=functools.partial(_reasons, run),
        legend=_legend(run),
        picture=picture.draw(run),
    )


def headline(run: Timeline) -> str:
    """The outcome in brief."""
    reached = sum(wave.began is not None for wave in run.waves)
    where = f" in wave {reached} of {len(run.waves)}" if reached else " before the first wave" if run.waves else ""
    hosts = sum(bool(row.steps) for row in run.rows)
    headlines: dict[RunOutcome, str] = {
        "done": f"done, {wording.many(hosts, 'host')} in {wording.many(reached, 'wave')}" if reached else "done",
        "failed": f"stopped{where}",
        "refused": "refused, nothing was changed",
        "nothing_to_do": "nothing to do",
        "checked": "checked, nothing was changed",
        "interrupted": f"interrupted{where}",
        "unfinished": f"no end is known{where and f'; last seen{where}'}",
    }
    return headlines[run.outcome]


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "clock": wording.clock,
        "span": wording.span,
        "many": wording.many,
        "moment": _moment,
        "sentence": lambda text: text[:1].upper() + text[1:],
        "measured": _measured,
        "changes": _changes,
        "verdict": lambda gate: Chip("good" if gate.passed else "bad", gate.verdict),
    }
    environment.globals["style"] = markupsafe.Markup(STYLE.read_text(encoding="utf-8"))
    return environment.get_template("report.html.j2")


def _alike(failures: Sequence[Failure]) -> list[list[Failure]]:
    """Failures with one cause together, in order of their first."""
    found: dict[str, list[Failure]] = {}
    for failure in failures:
        found.setdefault(failure.cause, []).append(failure)
    return list(found.values())


def _figures(run: Timeline) -> list[Figure]:
    reached = sum(wave.began is not None for wave in run.waves)
    serving = sorted({row.replica for row in run.rows if row.serves})
    longest = max(timeline.downtime(run).items(), key=lambda item: item[1], default=None)
    figures = [
        Figure("waves", f"{reached} of {len(run.waves)}") if run.waves else None,
        Figure("gates passed", f"{sum(gate.passed for gate in run.gates)} of {len(run.gates)}") if run.gates else None,
        Figure("serving now", wording.many(len(serving), "replica"), ", ".join(serving)) if run.rows else None,
        Figure("longest out of service", wording.span(longest[1]), longest[0]) if longest else None,
    ]
    return [figure for figure in figures if figure]


def _legend(run: Timeline) -> dict[str, str]:
    kinds = {segment.kind for row in run.rows for segment in itertools.chain(row.steps, row.serving)}
    return {kind: name for kind, name in picture.LEGEND.items() if kind in kinds}


def _changes(row: Row) -> list[tuple[str, str, str]]:
    """What runs on the host now and did not before: name, old, new."""
    return [
        (key, str(row.before.get(key) or "none"), str(row.after.get(key) or "none"))
        for key in row.after
        if row.before.get(key) != row.after.get(key)
    ]


def _state(run: Timeline, row: Row) -> Chip:
    failed = next((step for step in reversed(row.steps) if step.outcome != "ok"), None)
    if row.serves:
        rolled_back = any(step.kind == "rollback" for step in row.steps)
        return Chip("warn", "serving, rolled back") if rolled_back else Chip("good", "serving")
    if failed is not None:
        return Chip("warn" if failed.outcome == "unfinished" else "bad", f"{failed.outcome} at {failed.step}")
    return Chip("calm", "skipped" if row.replica in run.skipped else "not serving" if row.steps else "not reached")


def _reasons(run: Timeline, row: Row) -> Sequence[str]:
    for wave in run.waves:
        if row.host in wave.hosts:
            return wave.reasons.get(row.host, ())
    return [run.skipped[row.replica]] if row.replica in run.skipped else []


def _measured(gate: GateEvent) -> list[tuple[str, str]]:
    """What the gate measured, and the floor that it was compared with where there is one."""
    return [
        (f"{name} {_figure(value)}", f"floor {_figure(gate.floor[name])}" if _is_number(gate.floor.get(name)) else "")
        for name, value in _flat(gate.measured)
        if name != "seconds"
    ]


def _flat(measured: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float | str]]:
    """Figures and short texts, those of one level of nesting under joint names; lists are for programs."""
    for key, value in measured.items():
        if isinstance(value, Mapping) and not prefix:
            yield from _flat(value, f"{key} ")
        elif _is_number(value) or (isinstance(value, str) and len(value) < 60):
            yield f"{prefix}{key}", value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _figure(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _evidence(fetched: Collection[str], host: str, path: str) -> Evidence:
    local = f"{EVIDENCE}/{host}/{evidence_name(path)}"
    return Evidence(f"{host}:{path}", local if local in fetched else "")


def _moment(at: str) -> str:
    return f"{at[:19].replace('T', ' ')} UTC" if at else ""
