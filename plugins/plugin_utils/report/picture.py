"""The timeline as an inline SVG: hosts down, time across. Pure, text only, colours from the page's style sheet."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterable, Sequence

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import tracker
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.timeline import Kind, Row, Segment, Timeline

LEGEND: dict[Kind, str] = {
    "serving": "serving",
    "prepare": "prepare",
    "drain": "drain",
    "change": "change",
    "gates": "gates",
    "start": "start",
    "bake": "bake",
    "restore": "restore",
}
_TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400)
_LETTER = 6.2
_TOP = 40.0


@dataclasses.dataclass(frozen=True)
class Shape:
    """How a picture is laid out, in SVG units. ``labels`` is the width of the column of names; 0 puts names above bars."""

    name: str
    width: float
    labels: float
    thickness: float
    pitch: float
    ticks: int


WIDE = Shape("wide", 1000, 132, 18, 25, 9)
NARROW = Shape("narrow", 360, 0, 16, 38, 4)


def draw(timeline: Timeline, shape: Shape) -> str:
    """The picture, with a title and a description for those who don't see it."""
    seconds = max(timeline.seconds, 1.0)
    left, right = shape.labels + 2, shape.width - 14
    scale = (right - left) / seconds
    body: list[str] = []
    y = _TOP
    for replica, rows in _by_replica(timeline.rows):
        alone = len(rows) == 1 and rows[0].host == replica
        if not alone:
            body.append(_text(0, y + 12, "replica", replica))
            y += 18
        for row in rows:
            body += _row(row, y, left, right, scale, shape)
            y += shape.pitch
        y += 8
    height = y + 4
    back = [*_bands(timeline, left, scale, height), *_axis(seconds, left, scale, height, shape)]
    name = f"timeline-{shape.name}"
    return (
        f'<svg class="{shape.name}" viewBox="0 0 {shape.width:g} {height:g}" role="img" '
        f'aria-labelledby="{name}-title {name}-desc"><title id="{name}-title">Timeline: hosts by time</title>'
        f'<desc id="{name}-desc">{html.escape(describe(timeline))}</desc>{"".join(back)}{"".join(body)}</svg>'
    )


def describe(timeline: Timeline) -> str:
    """The picture in words."""
    told = []
    for row in timeline.rows:
        stretches = ", ".join(
            f"{segment.kind} from {tracker.clock(segment.began)} for {tracker.span(segment.seconds)}"
            + ("" if segment.outcome in ("ok", "serving") else f" ({segment.outcome})")
            for segment in [*row.serving[:1], *merged(row.steps), *row.serving[1:]]
        )
        told.append(f"{row.host}: {stretches or 'untouched and not serving'}.")
    return " ".join(told)


def merged(steps: Sequence[Segment]) -> list[Segment]:
    """Neighbouring steps of one kind and outcome as one stretch, which bears all their names."""
    found: list[Segment] = []
    for step in steps:
        last = found[-1] if found else None
        if last is not None and last.kind == step.kind and last.outcome == "ok" and last.wave == step.wave:
            names = f"{last.step}, {step.step}"
            found[-1] = dataclasses.replace(last, step=names, ended=step.ended, outcome=step.outcome)
        else:
            found.append(step)
    return found


def ticks(seconds: float, most: int) -> list[int]:
    """Round moments along the axis, at most ``most`` after the first."""
    every = next((tick for tick in _TICKS if seconds / tick <= most), 86400 * (int(seconds / 86400 / most) + 1))
    return list(range(0, int(seconds) + 1, every))


def _by_replica(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.replica, []).append(row)
    return list(found.items())


def _row(row: Row, y: float, left: float, right: float, scale: float, shape: Shape) -> list[str]:
    label = y + (shape.thickness * 0.72 if shape.labels else 12)
    top = y if shape.labels else y + 17
    drawn = [_text(0, label, "host", _short(row.host, shape)), _rect(left, top, right - left, shape.thickness, "idle")]
    for segment in [*row.serving, *merged(row.steps)]:
        drawn.append(_stretch(row, segment, left, top, scale, shape))
    if not row.steps:
        drawn.append(
            _text((left + right) / 2, top + shape.thickness * 0.7, f"mid {_untouched(row)[0]}", _untouched(row)[1])
        )
    drawn += [
        _cross(left + step.ended * scale, top + shape.thickness / 2)
        for step in row.steps
        if step.outcome in ("failed", "unreachable")
    ]
    return drawn


def _untouched(row: Row) -> tuple[str, str]:
    return ("inside", "untouched, serving") if row.serves else ("tick", "untouched, not serving")


def _stretch(row: Row, segment: Segment, left: float, top: float, scale: float, shape: Shape) -> str:
    x, width = left + segment.began * scale, max(segment.seconds * scale, 1.5)
    outcome = "" if segment.outcome in ("ok", "serving") else f", {segment.outcome}"
    title = f"{row.host}: {segment.step}, {tracker.span(segment.seconds)} from {tracker.clock(segment.began)}{outcome}"
    name = LEGEND[segment.kind]
    inside = ""
    height = shape.thickness
    if segment.kind == "prepare":  # done under whatever serves, so that must still be seen
        height = shape.thickness * 0.3
        top += shape.thickness - height
    elif row.steps and width > len(name) * _LETTER + 8:
        inside = _text(x + width / 2, top + shape.thickness * 0.7, f"inside mid on-{segment.kind}", name)
    unsure = " unfinished" if segment.outcome == "unfinished" else ""
    return f"<g><title>{html.escape(title)}</title>{_rect(x, top, width, height, segment.kind + unsure)}{inside}</g>"


def _bands(timeline: Timeline, left: float, scale: float, height: float) -> list[str]:
    drawn = []
    for wave in timeline.waves:
        if wave.began is None or wave.ended is None:
            continue
        x, width = left + wave.began * scale, (wave.ended - wave.began) * scale
        drawn.append(_rect(x, 20, width, height - 22, "band" if wave.n % 2 else "band even"))
        label = f"wave {wave.n}"
        if width > len(label) * _LETTER:
            drawn.append(_text(x + 4, 32, "tick", label))
    return drawn


def _axis(seconds: float, left: float, scale: float, height: float, shape: Shape) -> list[str]:
    drawn = []
    for tick in ticks(seconds, shape.ticks):
        x = left + tick * scale
        drawn.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="20" y2="{height - 2:g}"/>')
        if tick == 0 or x < shape.width - 24:
            drawn.append(_text(x, 13, "tick" if tick == 0 else "tick mid", tracker.clock(tick)))
    return drawn


def _cross(x: float, y: float) -> str:
    return (
        f'<g class="cross"><circle cx="{x:.1f}" cy="{y:.1f}" r="7"/>'
        f'<path d="M{x - 3:.1f} {y - 3:.1f}l6 6m0-6l-6 6"/></g>'
    )


def _rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:g}"/>'


def _text(x: float, y: float, kind: str, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>'


def _short(name: str, shape: Shape) -> str:
    most = int((shape.labels or shape.width) / 7)
    return name if len(name) <= most else f"{name[: most - 1]}…"
