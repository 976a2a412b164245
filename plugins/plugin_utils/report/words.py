"""The words that a report has for what the code calls by a key. Pure; a key that is not known is said as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

STEPS: Mapping[str, str] = {
    "prepare": "prepare the host",
    "drain": "drain",
    "quarantine": "quarantine",
    "driver": "install the driver",
    "runtime": "install what serves",
    "load": "load the driver",
    "gates": "gates",
    "ray": "start Ray",
    "wait": "wait for hosts",
    "serve": "start vLLM",
    "prove": "prove a completion",
    "admit": "admit",
    "bake": "bake",
    "restore": "restore",
}
"""The steps of a run, as the timeline and the table of steps name them."""
NEEDS: Mapping[str, str] = {
    "prepare": "host",
    "driver": "driver",
    "runtime": "serving environment",
    "ray": "Ray",
    "serve": "vLLM",
    "gates": "gates",
    "start": "start",
}
"""What a reason of the plan begins with."""
SOFTWARE: Mapping[str, str] = {
    "driver": "driver",
    "driver_packages": "driver packages",
    "fabric_manager": "fabric manager",
    "kernel": "kernel",
    "nccl": "NCCL",
    "torch": "torch",
    "ray": "Ray",
    "vllm": "vLLM",
    "python": "Python",
}
RUNGS: Mapping[str, str] = {
    "none": "none (eager)",
    "piecewise": "piecewise CUDA graphs",
    "full": "full CUDA graphs",
}
RUNGS_ON_CPU: Mapping[str, str] = {"piecewise": "piecewise (torch.compile)", "full": "full (torch.compile)"}
"""No graph is captured there: these rungs differ by what is compiled."""
VERDICTS: Mapping[str, str] = {"pass": "passed", "fail": "failed", "timeout": "timed out"}
OUTCOMES: Mapping[str, str] = {"ok": "done", "unfinished": "not finished"}


def steps(names: str) -> str:
    """One step, or several of one stretch of the timeline: ``ray, wait``."""
    return ", ".join(dict.fromkeys(STEPS.get(name, name) for name in names.split(", ")))


def rung(name: str, on_cpu: bool) -> str:
    return (RUNGS_ON_CPU if on_cpu else {}).get(name) or RUNGS.get(name, name)


def gates(text: str, on_cpu: bool) -> str:
    """What the graph gate tries, by its heading."""
    return text.replace("CUDA graphs", "graph (CPU: none captured)") if on_cpu else text


def software(key: str) -> str:
    return SOFTWARE.get(key, key.replace("_", " "))


def reasons(given: Iterable[str]) -> list[str]:
    """Reasons of a plan, ``runtime: never applied``, as people say them; a cause that several parts share is given once."""
    found: dict[str, list[str]] = {}
    for reason in given:
        need, colon, why = reason.partition(": ")
        known = colon and need in NEEDS
        found.setdefault(why if known else reason, []).extend([NEEDS[need]] if known else [])
    return [f"{', '.join(needs)}: {_named(why)}" if needs else why for why, needs in found.items()]


def task(name: str) -> str:
    """A task's name without the role's that Ansible puts before it."""
    return name.rpartition(" : ")[2]


def _named(why: str) -> str:
    """``driver and runtime will change`` by what these are."""
    what, will, rest = why.partition(" will change")
    parts = what.split(" and ")
    return f"{' and '.join(NEEDS[part] for part in parts)}{will}{rest}" if will and NEEDS.keys() >= {*parts} else why
