"""What a person who watches a run reads of each event, in one line."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.lockstep.vllm.plugins.module_utils.core.wording import clock, many, printable, span
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.fields import Given as Event
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.tracker import Tracker

_VERDICTS = {"pass": "passed", "fail": "FAILED", "timeout": "TIMED OUT"}


def line(event: Event, tracker: Tracker) -> str | None:
    """The line of one event; None where it adds nothing."""
    write = _LINES.get(str(event.get("event")))
    text = write(event, tracker) if write else None
    return None if text is None else f"{clock(event['elapsed']):>7}  {' '.join(printable(text).split(chr(10)))}"


def _planned(event: Event, tracker: Tracker) -> str | None:
    if tracker.plan.refused:
        return None  # the task that failed has said why
    left = f"; asked for and left out: {', '.join(tracker.plan.left_out)}" if tracker.plan.left_out else ""
    if not tracker.waves:
        return f"nothing is done{left}" if left else "nothing to do"
    hosts = sum(len(wave.hosts) for wave in tracker.plan.waves)
    return f"plan: {many(hosts, 'host')} in {many(tracker.waves, 'wave')}{_left(tracker)}{left}"


def _wave(event: Event, tracker: Tracker) -> str:
    hosts = f" ({', '.join(event['hosts'])})" if event["hosts"] else ""
    names = f": {', '.join(event['replicas'])}{hosts}" if event["replicas"] else ""
    return f"wave {event['wave']} of {tracker.waves or '?'}{names} begins{_left(tracker)}"


def _step(event: Event, tracker: Tracker) -> str:
    # Who serves is known only from a plan.
    serving = f"serving: {_serving_now(tracker)}" if tracker.planned else ""
    return f"{_where(event, tracker)}{event['step']:<10} {serving}{_left(tracker)}".rstrip()


def _gate(event: Event, tracker: Tracker) -> str:
    verdict = _VERDICTS.get(event["verdict"], event["verdict"])
    cause = f": {_first_line(event['cause'])}" if event.get("cause") else ""
    about = f" on {event['host']}" if event["host"] != event["on"] else ""
    where = _where({**event, "host": event["on"]}, tracker)
    return f"{where}gate {event['gate']} {verdict}{about} after {span(event['seconds'])}{cause}"


def _failed(event: Event, tracker: Tracker) -> str:
    what = "UNREACHABLE" if event["unreachable"] else "FAILED"
    return f"{_where(event, tracker)}{what} at {event['step'] or event['task']}: {_first_line(event['cause'])}"


def _serving(event: Event, tracker: Tracker) -> str:
    what = "serves" if event["serving"] else "is drained"
    return f"{event['replica']} {what}; serving: {_serving_now(tracker)}"


def _ended(event: Event, tracker: Tracker) -> str:
    following = f"; next: {event['next']}" if event.get("next") else ""
    # What whoever is called wants to know first of a roll that ended before it was done.
    broken_off = event["outcome"] in ("failed", "interrupted") and tracker.planned and tracker.wave is not None
    serving = f"; serving: {_serving_now(tracker)}" if broken_off else ""
    return f"{str(event['outcome']).replace('_', ' ')} after {span(event['elapsed'])}{serving}{following}"


_LINES: dict[str, Callable[[Event, Tracker], str | None]] = {
    "planned": _planned,
    "wave_started": _wave,
    "step_started": _step,
    "gate": _gate,
    "failed": _failed,
    "serving": _serving,
    "note": lambda event, tracker: f"{_where(event, tracker)}{event.get('text', '')}",
    "run_ended": _ended,
}


def _serving_now(tracker: Tracker) -> str:
    return ", ".join(tracker.serving) or "none"


def _where(event: Event, tracker: Tracker) -> str:
    wave = event.get("wave") or tracker.wave
    return f"wave {wave}/{tracker.waves or '?'}  {event['host']:<12} " if wave else f"{event['host']:<12} "


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")


def _left(tracker: Tracker) -> str:
    left = tracker.time_left()
    return "" if not left else f" · about {span(left)} left"
