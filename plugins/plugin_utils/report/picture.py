"""The geometry of the timeline's picture: hosts down, time across, in SVG units. The template draws it.

Pure: a timeline in, shapes out. Colours come from the page's style sheet, by the shapes' classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ansible_collections.lockstep.vllm.plugins.module_utils.core.grouping import grouped
from ansible_collections.lockstep.vllm.plugins.module_utils.core.wording import clock, span
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import words
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.timeline import Kind, Row, Segment, Timeline

LEGEND: dict[Kind, str] = {
    "serving": "serving",
    "prepare": "prepare",
    "drain": "drain",
    "change": "change",
    "gates": "gates",
    "start": "start",
    "bake": "bake",
    "rollback": "roll back",
}
WIDTH = 1000
_LABELS = 132  # the column of names
_LEFT, _RIGHT = _LABELS + 2, WIDTH - 14
_TOP = 40.0
_BAR = 18
_PITCH = 25
_MOST_TICKS = 9
_TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400)
_LETTER = 6.2
_LONGEST_NAME = _LABELS // 7


@dataclasses.dataclass(frozen=True)
class Text:
    x: float
    y: float
    kind: str
    text: str


@dataclasses.dataclass(frozen=True)
class Bar:
    """A rectangle; ``title`` is what a pointer that rests on it shows, ``label`` stands within."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str = ""
    label: Text | None = None


@dataclasses.dataclass(frozen=True)
class Picture:
    """What is drawn, in this order; ``crosses`` are the centres of failures, ``grid`` the vertical lines' x."""

    height: float
    bands: tuple[Bar, ...]
    grid: tuple[float, ...]
    texts: tuple[Text, ...]
    bars: tuple[Bar, ...]
    crosses: tuple[tuple[float, float], ...]
    description: str


def draw(timeline: Timeline) -> Picture:
    """The picture, with a description for those who don't see it."""
    seconds = max(timeline.seconds, 1.0)
    scale = (_RIGHT - _LEFT) / seconds
    texts: list[Text] = []
    bars: list[Bar] = []
    crosses: list[tuple[float, float]] = []
    y = _TOP
    for replica, rows in grouped((row.replica, row) for row in timeline.rows).items():
        if [row.host for row in rows] != [replica]:
            texts.append(Text(0, y + 12, "replica", replica))
            y += 18
        for row in rows:
            texts += _names(row, y)
            bars.append(Bar(_LEFT, y, _RIGHT - _LEFT, _BAR, "idle"))
            bars += [_bar(row, segment, y, scale) for segment in [*row.serving, *merged(row.steps)]]
            crosses += [
                (_LEFT + step.ended * scale, y + _BAR / 2)
                for step in row.steps
                if step.outcome in ("failed", "unreachable")
            ]
            y += _PITCH
        y += 8
    height = y + 4
    bands = _bands(timeline, scale, height)
    moments = [(tick, _LEFT + tick * scale) for tick in ticks(seconds, _MOST_TICKS)]
    axis = [
        Text(x, 13, "tick mid" if tick else "tick", clock(tick)) for tick, x in moments if not tick or x < WIDTH - 24
    ]
    return Picture(
        height=height,
        bands=tuple(bands),
        grid=tuple(x for _tick, x in moments),
        texts=(*axis, *texts),
        bars=tuple(bars),
        crosses=tuple(crosses),
        description=describe(timeline),
    )


def describe(timeline: Timeline) -> str:
    """The picture as text."""
    lines = []
    for row in timeline.rows:
        stretches = ", ".join(
            f"{LEGEND[segment.kind]} from {clock(segment.began)} for {span(segment.seconds)}"
            + (
                ""
                if segment.outcome in ("ok", "serving")
                else f" ({words.OUTCOMES.get(segment.outcome, segment.outcome)})"
            )
            for segment in [*row.serving[:1], *merged(row.steps), *row.serving[1:]]
        )
        lines.append(f"{row.host}: {stretches or 'untouched and not serving'}.")
    return " ".join(lines)


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


def _names(row: Row, y: float) -> list[Text]:
    name = row.host if len(row.host) <= _LONGEST_NAME else f"{row.host[: _LONGEST_NAME - 1]}…"
    host = Text(0, y + _BAR * 0.72, "host", name)
    if row.steps:
        return [host]
    kind, label = ("inside", "untouched, serving") if row.serves else ("tick", "untouched, not serving")
    return [host, Text((_LEFT + _RIGHT) / 2, y + _BAR * 0.7, f"mid {kind}", label)]


def _bar(row: Row, segment: Segment, y: float, scale: float) -> Bar:
    x, width, height = _LEFT + segment.began * scale, max(segment.seconds * scale, 1.5), float(_BAR)
    outcome = (
        "" if segment.outcome in ("ok", "serving") else f", {words.OUTCOMES.get(segment.outcome, segment.outcome)}"
    )
    title = f"{row.host}: {words.steps(segment.step)}, {span(segment.seconds)} from {clock(segment.began)}{outcome}"
    name, label = LEGEND[segment.kind], None
    if segment.kind == "prepare":  # done under whatever serves, so that must still be seen
        height = _BAR * 0.3
    elif row.steps and width > len(name) * _LETTER + 8:
        label = Text(x + width / 2, y + _BAR * 0.7, f"inside mid on-{segment.kind}", name)
    unsure = " unfinished" if segment.outcome == "unfinished" else ""
    return Bar(x, y + _BAR - height, width, height, segment.kind + unsure, title, label)


def _bands(timeline: Timeline, scale: float, height: float) -> list[Bar]:
    drawn = []
    for wave in timeline.waves:
        if wave.began is None or wave.ended is None:
            continue
        x, width = _LEFT + wave.began * scale, (wave.ended - wave.began) * scale
        name = f"wave {wave.n}"
        label = Text(x + 4, 32, "tick", name) if width > len(name) * _LETTER else None
        drawn.append(Bar(x, 20, width, height - 22, "band" if wave.n % 2 else "band even", "", label))
    return drawn
