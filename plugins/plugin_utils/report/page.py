"""The report of a run: one HTML page that carries all it needs, from the events of its journal alone.

Pure: events in, text out. ``report.html.j2`` lays it out, ``index.html.j2`` the list of runs; ``report.css`` stands in both.
They run no script and fetch nothing, read on a phone, print, and follow the reader's light or dark setting.
"""

from __future__ import annotations

import datetime
import functools
import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import jinja2
import markupsafe

from ansible_collections.lockstep.vllm.plugins.module_utils.core import wording
from ansible_collections.lockstep.vllm.plugins.module_utils.core.grouping import grouped
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import (
    engine_starts,
    gate_matrix,
    picture,
    timeline,
    words,
)
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.events import Failure, RunOutcome
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.journal import EVIDENCE, evidence_name
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.served import Endpoint
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.timeline import Event, Row, Timeline

STYLE = Path(__file__).with_name("report.css")
Tone = Literal["good", "bad", "warn", "calm"]
_TONE: dict[RunOutcome, Tone] = {
    "done": "good",
    "gates_failed": "bad",
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
    matrix = gate_matrix.matrix(run.gates)
    failures = grouped((failure.cause, failure) for failure in run.failures)
    failed_gates = grouped(((gate_matrix.column(gate), gate.cause), gate) for gate in run.gates if not gate.passed)
    return _template().render(
        run=run,
        matrix=matrix,
        columns=[words.gates(name, run.on_cpu) for name in matrix.columns],
        failed_gates=list(failed_gates.values()),
        hosts=_alike_hosts(run),
        subject=_subject(run),
        headline=headline(run),
        tone=_tone(run),
        facts=_facts(run),
        starts=engine_starts.alike(run),
        figures=_figures(run),
        failures=list(failures.values()),
        evidence=functools.partial(_evidence, fetched),
        legend=_legend(run),
        picture=picture.draw(run),
        gate_name=functools.partial(words.gates, on_cpu=run.on_cpu),
    )


class Listed(NamedTuple):
    """A run in the index; ``link`` is empty where it has no report."""

    began: str
    subject: str
    headline: str
    tone: Tone
    took: str
    by: str
    limit: str
    link: str


def listed(events: Sequence[Event], link: str) -> Listed:
    """A journal, as the index shows it."""
    run = timeline.build(events)
    by = "@".join(filter(None, (run.start.user, run.start.controller)))
    return Listed(
        moment(run.start),
        _subject(run),
        headline(run),
        _tone(run),
        wording.span(run.seconds),
        by,
        run.start.limit,
        link,
    )


def render_index(runs: Sequence[Listed], all_runs: int) -> str:
    """The page that leads to the reports: ``runs`` newest first, of ``all_runs`` that are kept."""
    return _template("index.html.j2").render(runs=runs, all=all_runs)


def headline(run: Timeline) -> str:
    """The outcome in brief."""
    reached = sum(wave.began is not None for wave in run.waves)
    where = f" in wave {reached} of {len(run.waves)}" if reached else " before the first wave" if run.waves else ""
    hosts = sum(bool(row.steps) for row in run.rows)
    headlines: dict[RunOutcome, str] = {
        "done": f"done, {wording.many(hosts, 'host')} in {wording.many(reached, 'wave')}" if reached else _done(run),
        "gates_failed": _gates_failed(run),
        "failed": f"stopped{where}",
        "refused": "refused, nothing was changed",
        "nothing_to_do": "nothing to do",
        "checked": "checked, nothing was changed",
        "interrupted": f"interrupted{where}",
        "unfinished": f"no end is known{where and f'; last seen{where}'}",
    }
    return headlines[run.outcome]


def _tone(run: Timeline) -> Tone:
    """Of a run that did not try all that it was to try, nothing good is known yet."""
    return "calm" if run.outcome == "done" and _not_run(run) else _TONE[run.outcome]


def _not_run(run: Timeline) -> dict[str, tuple[str, ...]]:
    return gate_matrix.not_run(run.gates, run.start.playbook)


def _done(run: Timeline) -> str:
    by_hosts = grouped((hosts, words.gates(name, run.on_cpu)) for name, hosts in _not_run(run).items())
    return "; ".join(
        ["done", *(f"{wording.names(gates)} not run on {wording.names(hosts, 4)}" for hosts, gates in by_hosts.items())]
    )


def _subject(run: Timeline) -> str:
    return (run.start.playbook or "run").replace("_", " ").capitalize()


def _gates_failed(run: Timeline) -> str:
    found = gate_matrix.matrix(run.gates)
    return f"{wording.many(found.failing, 'gate')} failed, on {wording.names(found.failing_hosts, 4)}"


def _offered(run: Timeline) -> tuple[Endpoint, ...]:
    """Where clients should go: the routers, where there are any; else the replicas that serve."""
    serving = {row.replica for row in run.rows if row.serves}
    return tuple(each for each in run.endpoints if each.router) or tuple(
        each for each in run.endpoints if each.name in serving
    )


@functools.cache
def _template(name: str = "report.html.j2") -> jinja2.Template:
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
        "names": wording.names,
        "sentence": lambda text: text[:1].upper() + text[1:],
        "figures": gate_matrix.figures,
        "verdict": lambda gate: Chip("good" if gate.passed else "bad", words.VERDICTS.get(gate.verdict, gate.verdict)),
        "cell": _cell,
        "column": gate_matrix.column,
        "software": words.software,
        "task": words.task,
        "less": _less_next,
        "step": lambda step: words.STEPS.get(step, step),
        "outcome": lambda outcome: words.OUTCOMES.get(outcome, outcome),
    }
    environment.globals["style"] = markupsafe.Markup(STYLE.read_text(encoding="utf-8"))
    return environment.get_template(name)


def _less_next(failure: Failure) -> str:
    """Its cause less the command at its end, which has a place of its own."""
    cause = failure.cause.rstrip()
    return cause.removesuffix(f"Next: {failure.next}").rstrip() if failure.next else cause


class HostRow(NamedTuple):
    """Hosts that went through the run alike."""

    hosts: tuple[str, ...]
    replicas: tuple[str, ...]
    wave: int | None
    driver: str
    changes: tuple[tuple[str, str, str], ...]
    state: Chip
    reasons: tuple[str, ...]


def _alike_hosts(run: Timeline) -> list[HostRow]:
    found: dict[HostRow, list[Row]] = {}
    for row in run.rows:
        driver = str(row.after.get("driver") or "")
        alike = HostRow((), (), row.wave, driver, tuple(_changes(row)), _state(run, row), ())
        found.setdefault(alike, []).append(row)
    return [
        alike._replace(
            hosts=tuple(row.host for row in rows),
            replicas=tuple(dict.fromkeys(row.replica for row in rows)),
            reasons=_shared_reasons(run, rows),
        )
        for alike, rows in found.items()
    ]


def _shared_reasons(run: Timeline, rows: Sequence[Row]) -> tuple[str, ...]:
    """Why, over several hosts: a reason of some of them alone names these."""
    found = grouped((reason, row.host) for row in rows for reason in _reasons(run, row))
    everybody = [reason for reason, hosts in found.items() if len(hosts) == len(rows)]
    some = [reason for reason in found if reason not in everybody]
    return (*words.reasons(everybody), *(f"{words.reasons([one])[0]} ({wording.names(found[one], 4)})" for one in some))


def _cell(cell: gate_matrix.Cell) -> Chip:
    if not cell.verdict:
        return Chip("calm", "not run")
    if cell.passed:
        return Chip("warn", "passed, failed before") if cell.failed_before else Chip("good", "passed")
    return Chip("bad", words.VERDICTS.get(cell.verdict, cell.verdict))


def _facts(run: Timeline) -> list[tuple[str, str]]:
    """What stands below the headline: name and value."""
    offered = _offered(run)
    served = offered or run.endpoints
    urls = wording.names([each.url for each in offered], 4)
    facts = [
        ("cluster", run.start.cluster),
        ("model", ", ".join(dict.fromkeys(each.model for each in served))),
        ("endpoint" if len(offered) == 1 else "endpoints", urls),
        ("run", run.run),
        ("began", moment(run.start)),
        ("took", wording.span(run.seconds)),
        ("by", "@".join(filter(None, (run.start.user, run.start.controller)))),
        ("limit", run.start.limit),
        ("command", run.start.command),
    ]
    return [(name, value) for name, value in facts if value]


def _figures(run: Timeline) -> list[Figure]:
    passed = f"{sum(gate.passed for gate in run.gates)} of {len(run.gates)}"
    without = sum(map(len, _not_run(run).values()))
    serving = sorted({row.replica for row in run.rows if row.serves})
    longest = max(timeline.downtime(run).items(), key=lambda item: item[1], default=None)
    now = "served when last seen" if run.outcome == "unfinished" else "served at the end"
    figures = [
        Figure("waves done", f"{_waves_done(run)} of {len(run.waves)}") if run.waves else None,
        Figure("gates passed", passed, f"{without} not run" if without else "") if run.gates else None,
        Figure(now, wording.many(len(serving), "replica"), ", ".join(serving)) if run.rows else None,
        Figure("longest out of service", wording.span(longest[1]), longest[0]) if longest else None,
    ]
    return [figure for figure in figures if figure]


def _waves_done(run: Timeline) -> int:
    """The last one that was reached is done unless the run ended in it, or a host of it failed."""
    reached = [wave for wave in run.waves if wave.began is not None]
    if run.outcome in ("done", "gates_failed"):
        return len(reached)
    failed = {failure.wave for failure in run.failures}
    ended = len(reached) if run.outcome == "failed" else len(reached) - 1
    return sum(wave.n not in failed for wave in reached[: max(ended, 0)])


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
        where = words.STEPS.get(failed.step, failed.step)
        if failed.outcome == "unfinished":
            return Chip("warn", f"last seen: {where}")
        return Chip("bad", f"{failed.outcome}: {where}")
    return Chip("calm", "skipped" if row.replica in run.skipped else "not serving" if row.steps else "not reached")


def _reasons(run: Timeline, row: Row) -> Sequence[str]:
    for wave in run.waves:
        if row.host in wave.hosts:
            return wave.reasons.get(row.host, ())
    return [run.skipped[row.replica]] if row.replica in run.skipped else []


def _evidence(fetched: Collection[str], host: str, path: str) -> Evidence:
    local = f"{EVIDENCE}/{host}/{evidence_name(path)}"
    return Evidence(f"{host}:{path}", local if local in fetched else "")


def moment(start: timeline.RunStart) -> str:
    """When it began: by the controller's clock where the journal knows it, else UTC."""
    try:
        at = datetime.datetime.fromisoformat(start.at.replace("Z", "+00:00"))
        offset = datetime.timedelta(seconds=float(start.utc_offset or 0))
        local = at.astimezone(datetime.timezone(offset))
    except (ValueError, OverflowError):
        return ""
    return f"{local:%Y-%m-%d %H:%M:%S} {start.zone or 'UTC'}"
