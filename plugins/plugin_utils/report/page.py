"""The report of a run: one HTML page that carries all it needs, from the events of its journal alone.

Pure: events in, text out. The page runs no script and fetches nothing, reads on a phone, prints, and follows the
reader's light or dark setting.
"""

from __future__ import annotations

import html
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import picture, timeline, tracker
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.timeline import Event, Row, Timeline

EVIDENCE = "evidence"

_TONE = {
    "done": "good",
    "nothing_to_do": "good",
    "checked": "calm",
    "refused": "bad",
    "failed": "bad",
    "interrupted": "warn",
    "unfinished": "warn",
}
_VERDICTS = {"pass": ("good", "pass"), "fail": ("bad", "fail"), "timeout": ("bad", "timeout")}


def fetched_evidence(folder: Path) -> frozenset[str]:
    """Evidence that lies beside the report as ``evidence/<host>/<path on the host>``: those relative paths."""
    return frozenset(path.relative_to(folder).as_posix() for path in (folder / EVIDENCE).rglob("*"))


def render(events: Sequence[Event], fetched: Collection[str] = ()) -> str:
    """The page.

    Args:
        events: a journal, or any beginning of one.
        fetched: paths relative to the page of evidence that can be linked; other evidence is named by host and path.
    """
    told = timeline.build(events)
    sections = [
        _trouble(told, fetched),
        _figures(told),
        _picture(told),
        _hosts(told),
        _gates(told, fetched),
        _waves(told),
        _notes(told),
        _steps(told),
    ]
    title = f"{_subject(told)}: {headline(told)}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f'<link rel="icon" href="data:,"><title>{_e(title)}</title><style>{_STYLE}</style></head>\n<body>'
        f"{_header(told)}<main>{''.join(sections)}</main>{_footer(told)}</body></html>\n"
    )


def headline(told: Timeline) -> str:
    """The outcome in a few words."""
    reached = sum(wave.began is not None for wave in told.waves)
    where = f" in wave {reached} of {len(told.waves)}" if reached else " before the first wave" if told.waves else ""
    hosts = sum(bool(row.steps) for row in told.rows)
    return {
        "done": f"done, {tracker.many(hosts, 'host')} in {tracker.many(reached, 'wave')}" if reached else "done",
        "failed": f"stopped{where}",
        "refused": "refused, nothing was changed",
        "nothing_to_do": "nothing to do",
        "checked": "checked, nothing was changed",
        "interrupted": f"interrupted{where}",
    }.get(told.outcome, f"no end is known{where and f'; last seen{where}'}")


def _subject(told: Timeline) -> str:
    return str(told.start.get("playbook") or "run").replace("_", " ").capitalize()


def _header(told: Timeline) -> str:
    start = told.start
    facts = [
        ("run", told.run),
        ("began", _moment(start.get("at"))),
        ("took", tracker.span(told.seconds)),
        ("by", "@".join(str(start[key]) for key in ("user", "controller") if start.get(key))),
        ("limit", str(start.get("limit") or "")),
    ]
    listed = "".join(f"<div><dt>{name}</dt><dd>{_e(value)}</dd></div>" for name, value in facts if value)
    tone = _TONE.get(told.outcome, "warn")
    return (
        f'<header class="{tone}"><p class="brand">Lockstep</p><h1>{_e(_subject(told))}</h1>'
        f'<p class="outcome"><span class="dot" aria-hidden="true"></span>{_e(_sentence(headline(told)))}</p>'
        f"<dl>{listed}</dl></header>"
    )


def _trouble(told: Timeline, fetched: Collection[str]) -> str:
    if not told.failures:
        return "" if not told.next else _section("Next", _command(told.next))
    first, *others = _alike(told.failures)
    parts = [_failure(first, fetched)]
    if others:
        later = "".join(_failure(group, fetched) for group in others)
        parts.append(f"<details><summary>{tracker.many(len(others), 'later failure')}</summary>{later}</details>")
    if told.next:
        parts.append(f"<h3>Next</h3>{_command(told.next)}")
    return _section("Why it stopped" if told.outcome != "done" else "What failed on the way", "".join(parts), "trouble")


def _alike(failures: Iterable[Event]) -> list[list[Event]]:
    """Failures with one cause together, in order of their first."""
    found: dict[str, list[Event]] = {}
    for failure in failures:
        found.setdefault(str(failure.get("cause", "")), []).append(failure)
    return list(found.values())


def _failure(group: Sequence[Event], fetched: Collection[str]) -> str:
    first = group[0]
    hosts = ", ".join(dict.fromkeys(str(failure["host"]) for failure in group))
    what = "unreachable" if first.get("unreachable") else "failed"
    step = f", step {first['step']}" if first.get("step") else ""
    wave = f", wave {first['wave']}" if first.get("wave") else ""
    evidence = [
        _evidence(str(failure["host"]), path, fetched) for failure in group for path in failure.get("evidence") or []
    ]
    listed = f"<ul class=evidence>{''.join(f'<li>{item}</li>' for item in evidence)}</ul>" if evidence else ""
    return (
        f"<p><strong>{_e(hosts)}</strong> {what} after {tracker.clock(float(first['elapsed']))}{_e(step)}{_e(wave)}: "
        f"<q>{_e(str(first.get('task', '')))}</q></p><pre>{_e(str(first.get('cause', '')))}</pre>{listed}"
    )


def _figures(told: Timeline) -> str:
    reached = sum(wave.began is not None for wave in told.waves)
    passed = sum(gate.get("verdict") == "pass" for gate in told.gates)
    serving = sorted({row.replica for row in told.rows if row.serves})
    out = timeline.downtime(told)
    longest = max(out.items(), key=lambda item: item[1], default=None)
    figures = [
        ("waves", f"{reached} of {len(told.waves)}", "") if told.waves else None,
        ("gates passed", f"{passed} of {len(told.gates)}", "") if told.gates else None,
        ("serving now", tracker.many(len(serving), "replica"), ", ".join(serving)) if told.rows else None,
        ("longest out of service", tracker.span(longest[1]), longest[0]) if longest else None,
    ]
    cards = "".join(
        f"<div><dt>{_e(figure[0])}</dt><dd>{_e(figure[1])}<small>{_e(figure[2])}</small></dd></div>"
        for figure in figures
        if figure
    )
    return f'<dl class="figures">{cards}</dl>' if cards else ""


def _picture(told: Timeline) -> str:
    if not told.rows:
        return ""
    kinds = {segment.kind for row in told.rows for segment in [*row.steps, *row.serving]}
    legend = "".join(
        f'<li><svg class="key" viewBox="0 0 14 14" aria-hidden="true"><rect class="{kind}" width="14" height="14"/></svg>'
        f"{name}</li>"
        for kind, name in picture.LEGEND.items()
        if kind in kinds
    )
    drawn = picture.draw(told, picture.WIDE) + picture.draw(told, picture.NARROW)
    return _section("Timeline", f'<ul class="legend">{legend}</ul><figure>{drawn}</figure>')


def _hosts(told: Timeline) -> str:
    rows = [
        [
            ("host", f"<strong>{_e(row.host)}</strong>"),
            ("replica", _e(row.replica)),
            ("wave", str(row.wave or "–")),
            ("versions", _versions(row)),
            ("at the end", _state(row, told)),
            ("why", _e("; ".join(_reasons(told, row)))),
        ]
        for row in told.rows
    ]
    return _section("Hosts", _table(rows)) if rows else ""


def _versions(row: Row) -> str:
    changed = [
        f"{_e(key)} {_e(row.before.get(key) or 'none')} → <strong>{_e(row.after.get(key) or 'none')}</strong>"
        for key in row.after
        if row.before.get(key) != row.after.get(key)
    ]
    driver = row.after.get("driver")
    return "<br>".join(changed) or (f"driver {_e(driver)}" if driver else "–")


def _state(row: Row, told: Timeline) -> str:
    failed = next((step for step in reversed(row.steps) if step.outcome != "ok"), None)
    if row.serves:
        restored = any(step.kind == "restore" for step in row.steps)
        return _chip("warn", "serving, restored") if restored else _chip("good", "serving")
    if failed is not None:
        return _chip("warn" if failed.outcome == "unfinished" else "bad", f"{failed.outcome} at {failed.step}")
    return _chip("calm", "not serving" if row.steps or row.replica in told.skipped else "not reached")


def _reasons(told: Timeline, row: Row) -> list[str]:
    for wave in told.waves:
        if row.host in wave.hosts:
            return [str(reason) for reason in wave.reasons.get(row.host, ())]
    return [told.skipped[row.replica]] if row.replica in told.skipped else []


def _gates(told: Timeline, fetched: Collection[str]) -> str:
    rows = [
        [
            ("gate", f"<strong>{_e(gate['gate'])}</strong>"),
            ("where", _e(" ↔ ".join(gate["pair"]) if gate.get("pair") else str(gate.get("host") or ""))),
            ("verdict", _chip(*_VERDICTS.get(str(gate.get("verdict")), ("warn", str(gate.get("verdict")))))),
            ("took", _took(float(gate.get("seconds") or 0))),
            ("measured", _measured(gate)),
            ("remarks", _remarks(gate, fetched)),
        ]
        for gate in told.gates
    ]
    return _section("Gates", _table(rows)) if rows else ""


def _measured(gate: Event) -> str:
    floor: Mapping[str, Any] = gate.get("floor") or {}
    shown = [
        f"{_e(name)} {_e(_figure(value))}"
        + (f" <small>(floor {_e(_figure(floor[name]))})</small>" if _is_number(floor.get(name)) else "")
        for name, value in _flat(gate.get("measured") or {})
        if name != "seconds"
    ]
    return " · ".join([*shown, *([f"<small>over {_e(gate['backend'])}</small>"] if gate.get("backend") else [])]) or "–"


def _flat(measured: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Figures and short words, those of one level of nesting under joint names; lists are for programs."""
    for key, value in measured.items():
        if isinstance(value, Mapping) and not prefix:
            yield from _flat(value, f"{key} ")
        elif _is_number(value) or (isinstance(value, str) and len(value) < 60):
            yield f"{prefix}{key}", value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _remarks(gate: Event, fetched: Collection[str]) -> str:
    said = [_e(str(gate["cause"]))] if gate.get("cause") else []
    said += [_e(str(warning)) for warning in gate.get("warnings") or []]
    on = str(gate.get("on") or gate.get("host") or "")
    return "<br>".join([*said, *(_evidence(on, str(path), fetched) for path in gate.get("evidence") or [])]) or "–"


def _waves(told: Timeline) -> str:
    rows = []
    for wave in told.waves:
        took = "–" if wave.began is None or wave.ended is None else tracker.span(wave.ended - wave.began)
        rows.append(
            [
                ("wave", f"<strong>{wave.n}</strong>"),
                ("replicas", _e(", ".join(wave.replicas))),
                ("hosts", _e(", ".join(wave.hosts))),
                ("took", took if wave.began is not None else _chip("calm", "not begun")),
            ]
        )
    left = "".join(f"<li><strong>{_e(name)}</strong>: {_e(why)}</li>" for name, why in told.skipped.items())
    table = _table(rows) if rows else ""
    return _section("Plan", table + (f"<p>Left alone:</p><ul>{left}</ul>" if left else "")) if rows or left else ""


def _notes(told: Timeline) -> str:
    listed = "".join(
        f"<li><time>{tracker.clock(float(note['elapsed']))}</time> {_e(str(note.get('host', '')))} "
        f"{_e(str(note.get('text', '')))}</li>"
        for note in told.notes
    )
    return _section("Notes", f"<ul>{listed}</ul>") if listed else ""


def _steps(told: Timeline) -> str:
    rows = [
        [
            ("host", _e(row.host)),
            ("step", f"<strong>{_e(step.step)}</strong>"),
            ("from", tracker.clock(step.began)),
            ("took", _took(step.seconds)),
            ("outcome", _chip({"ok": "good", "unfinished": "warn"}.get(step.outcome, "bad"), step.outcome)),
        ]
        for row in told.rows
        for step in row.steps
    ]
    if not rows:
        return ""
    return f"<section><details><summary><h2>Every step</h2></summary>{_table(rows)}</details></section>"


def _footer(told: Timeline) -> str:
    return (
        "<footer><p>Written from <code>journal.jsonl</code> beside this page. The truth is on the hosts: "
        "<code>ansible-playbook playbooks/status.yml</code> asks them.</p></footer>"
    )


def _evidence(host: str, path: str, fetched: Collection[str]) -> str:
    local = f"{EVIDENCE}/{host}{path}"
    if local in fetched:
        return f'<a href="{_e(local)}">{_e(host)}:{_e(path)}</a>'
    return f"<code>{_e(host)}:{_e(path)}</code>"


def _table(rows: Sequence[Sequence[tuple[str, str]]]) -> str:
    """Rows of (column, cell in HTML). On a narrow screen each row is a card and each cell bears its column's name."""
    head = "".join(f'<th scope="col">{name}</th>' for name, _cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f'<td data-label="{name}"><div>{cell}</div></td>' for name, cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _section(title: str, content: str, kind: str = "") -> str:
    return f'<section class="{kind}"><h2>{_e(title)}</h2>{content}</section>'


def _chip(tone: str, text: str) -> str:
    return f'<span class="chip {tone}">{_e(text)}</span>'


def _command(text: str) -> str:
    return f'<pre class="command">{_e(text)}</pre>'


def _took(seconds: float) -> str:
    return f'<span class="took">{tracker.span(seconds)}</span>'


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _moment(at: Any) -> str:
    return str(at or "")[:19].replace("T", " ") + (" UTC" if at else "")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _e(text: Any) -> str:
    return html.escape(str(text))


_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ground:#f4f5f7;--ink:#1b1f24;--quiet:#5b6470;--line:#dde1e6;
--good:#1a7f4e;--bad:#c0262d;--warn:#9a6200;--calm:#4b5a6a;--link:#0b62c4;
--prepare:#8d99a6;--serving:#23804f;--drain:#f0b429;--change:#2c6cc4;--gates:#8250d0;--start:#127888;--bake:#a9d86e;--restore:#bd4f17;
--idle:#e9ecef;--band:#00000008}
@media (prefers-color-scheme:dark){:root{--paper:#1a1e24;--ground:#111419;--ink:#e8ebef;--quiet:#9aa5b1;--line:#313842;
--good:#55c98d;--bad:#ff7b7b;--warn:#f0b84a;--calm:#a7b4c2;--link:#78b4ff;
--prepare:#8d99a6;--serving:#25804f;--drain:#d19a22;--change:#3a70bd;--gates:#7d55c4;--start:#167a8a;--bake:#86b64c;--restore:#b9541f;
--idle:#262c34;--band:#ffffff0a}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
-webkit-text-size-adjust:100%}
header,main,footer{max-width:68rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2rem;padding-bottom:.5rem}
.brand{margin:0;color:var(--quiet);font-size:.8rem;font-weight:600;letter-spacing:.12em;text-transform:uppercase}
h1{margin:.1rem 0 .2rem;font-size:clamp(1.6rem,4vw,2.3rem);line-height:1.15;letter-spacing:-.02em}
h2{margin:0 0 .8rem;font-size:1.15rem;letter-spacing:-.01em}
h3{margin:1.2rem 0 .4rem;font-size:1rem}
.outcome{display:flex;align-items:center;gap:.55rem;margin:.2rem 0 1rem;font-size:1.15rem;font-weight:600}
.dot{flex:none;width:.8rem;height:.8rem;border-radius:50%;background:currentColor}
.good .outcome,.chip.good{color:var(--good)}.bad .outcome,.chip.bad{color:var(--bad)}
.warn .outcome,.chip.warn{color:var(--warn)}.calm .outcome,.chip.calm{color:var(--calm)}
header dl{display:flex;flex-wrap:wrap;gap:.4rem 1.6rem;margin:0;font-size:.9rem}
header dl div{display:flex;gap:.45rem}dt{color:var(--quiet)}dd{margin:0}
section{background:var(--paper);border:1px solid var(--line);border-radius:.75rem;padding:1.15rem 1.25rem;margin:1rem 0}
section.trouble{border-color:var(--bad);border-left-width:.35rem}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));gap:1rem;margin:1rem 0}
.figures div{background:var(--paper);border:1px solid var(--line);border-radius:.75rem;padding:.8rem 1.1rem}
.figures dt{font-size:.85rem}.figures dd{font-size:1.35rem;font-weight:650;letter-spacing:-.01em}
.figures small{display:block;font-size:.85rem;font-weight:400;letter-spacing:0}
small{color:var(--quiet)}
pre{margin:.5rem 0;padding:.75rem .9rem;border-radius:.5rem;background:var(--ground);border:1px solid var(--line);
font:.85rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;white-space:pre-wrap;overflow-wrap:anywhere}
pre.command{border-left:.3rem solid var(--link)}
code{font:.85em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
a{color:var(--link)}q{quotes:"\\201C" "\\201D"}
.evidence{margin:.4rem 0;padding-left:1.2rem}
.legend{display:flex;flex-wrap:wrap;gap:.25rem 1.1rem;margin:0 0 .8rem;padding:0;list-style:none;font-size:.85rem}
.legend li{display:flex;align-items:center;gap:.4rem}.key{width:.85rem;height:.85rem}
figure{margin:0}figure svg{display:block;width:100%;height:auto;overflow:visible}svg.narrow{display:none}
svg text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--ink)}
svg .tick{fill:var(--quiet);font-size:10.5px}svg .mid{text-anchor:middle}
svg .replica{font-weight:650;font-size:12px}svg .host{font-size:12px}svg .inside{font-size:10.5px;fill:#fff;font-weight:600}
svg .on-drain,svg .on-bake{fill:#1b1f24}
svg rect{rx:3px;fill:var(--idle)}svg .band{fill:var(--band);rx:0}svg .band.even{fill:none}
.prepare{fill:var(--prepare)!important;stroke:var(--paper);stroke-width:.6}.serving{fill:var(--serving)!important}.drain{fill:var(--drain)!important}.change{fill:var(--change)!important}
.gates{fill:var(--gates)!important}.start{fill:var(--start)!important}.bake{fill:var(--bake)!important}
.restore{fill:var(--restore)!important}
svg .unfinished{opacity:.6;stroke:var(--ink);stroke-dasharray:3 2}
svg .grid{stroke:var(--line)}
svg .cross circle{fill:var(--bad);stroke:var(--paper);stroke-width:1.5}svg .cross path{stroke:var(--paper);stroke-width:1.8}
table{width:100%;border-collapse:collapse;font-size:.9rem}
th{padding:.35rem .8rem .35rem 0;text-align:left;color:var(--quiet);font-weight:500;border-bottom:1px solid var(--line)}
td{padding:.5rem .8rem .5rem 0;vertical-align:top;border-bottom:1px solid var(--line);overflow-wrap:break-word}
tbody tr:last-child td{border-bottom:0}
.chip{display:inline-block;font-weight:600;white-space:nowrap}
.chip::before{content:"";display:inline-block;width:.55em;height:.55em;margin-right:.4em;border-radius:50%;
background:currentColor}
.took{white-space:nowrap}summary{cursor:pointer}summary h2{display:inline;margin:0}details[open] summary{margin-bottom:.8rem}
footer{padding-bottom:2.5rem;color:var(--quiet);font-size:.85rem}
time{color:var(--quiet);font-variant-numeric:tabular-nums}
@media (max-width:40rem){
header,main,footer{padding-left:.9rem;padding-right:.9rem}section{padding:1rem}
svg.wide{display:none}svg.narrow{display:block}.figures{grid-template-columns:1fr 1fr;gap:.6rem}
thead{position:absolute;clip-path:inset(50%);height:1px;overflow:hidden}
tr{display:block;padding:.5rem 0;border-bottom:1px solid var(--line)}tbody tr:last-child{border-bottom:0}
td{display:grid;grid-template-columns:6rem 1fr;gap:.6rem;padding:.12rem 0;border:0}
td>div{min-width:0;overflow-wrap:anywhere}td::before{content:attr(data-label);color:var(--quiet)}
td:first-child{display:block;font-size:1.05rem;font-weight:650}td:first-child::before{content:none}
.chip{white-space:normal}
}
@media print{
:root{color-scheme:light;--paper:#fff;--ground:#fff;--ink:#000;--quiet:#444;--line:#bbb;--good:#14663f;--bad:#a01c22;
--warn:#7a4e00;--calm:#444;--link:#000;--idle:#eee;--band:#0000000a}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
body{font-size:10.5pt}section,.figures div{break-inside:avoid-page;border-radius:0}header{padding-top:0}
tr{break-inside:avoid}section:has(table){break-inside:auto}
}
"""
