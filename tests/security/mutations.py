"""Many bad answers quickly: good ones with places spoiled, and their text with bytes spoiled, by a seeded generator.

Hypothesis draws and keeps every example so that it can shrink it, some milliseconds each, and more the more there were; that is
for hundreds of cases (hostile.py). Here a case costs some tens of microseconds, and is known again by its seed and number.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.core import typed
from tests.security import hostile

FRAGMENTS = (
    b"\0", b"\xff", b"\xed\xa0\x80", b'"', b"\\", b"\\u0000", b"\\ud800", b"{", b"}", b"[" * 400, b"]", b",", b":", b"1e999", b"-",
    b"NaN", b"Infinity", b"9" * 300, b"null", b"\x1e", b"\x1b[2J", b"\r\n", b"\xe2\x80\xae", b" " * 5000,
)  # fmt: skip
MOST_RESULTS = 150
"""Of a run: its beginning and its report cost as much as some dozens of results."""
Check = Callable[[Any], object]
Result = tuple[str, Any, bool]
"""A host's, what it is, and whether it is a failure."""


class Mutator:
    """Bad answers made from ``goods``. Equal seeds give equal answers."""

    def __init__(self, goods: Sequence[Any], seed: int) -> None:
        self._random = random.Random(seed)
        self._goods = [
            (
                pickle.dumps(good),
                [place for place in hostile._places(good) if place] or [("x",)],
                json.dumps(good).encode(),
            )
            for good in goods
        ]

    def value(self) -> Any:
        """A good answer with one to three places replaced, removed or added to; one in twenty is nothing like it."""
        chance = self._random
        if chance.random() < 0.05:
            return self._any(3)
        pickled, places, _text = chance.choice(self._goods)
        value = pickle.loads(pickled)
        for _change in range(chance.choice((1, 1, 2, 3))):
            self._spoil(value, chance.choice(places))
        return value

    def _spoil(self, value: Any, place: tuple[Any, ...]) -> None:
        chance, holder = self._random, value
        for key in place[:-1]:
            try:
                holder = holder[key]
            except (KeyError, IndexError, TypeError):
                return  # a change before this one has taken it away
        if isinstance(holder, dict):
            what = chance.random()
            if what < 0.2:
                holder.pop(place[-1], None)
            elif what < 0.4:
                holder[self._key()] = self._any(2)
            else:
                holder[place[-1]] = self._any(2)
        elif isinstance(holder, list) and holder:
            holder[chance.randrange(len(holder))] = self._any(2)

    def _key(self) -> str:
        return self._random.choice(self._random.choice((hostile.KEYS, hostile.TEXTS)))

    def _any(self, levels: int) -> Any:
        chance = self._random
        kind = chance.random()
        if kind < 0.15 and levels:
            return [self._any(levels - 1) for _each in range(chance.randrange(4))]
        if kind < 0.35 and levels:
            return {self._key(): self._any(levels - 1) for _each in range(chance.randrange(4))}
        if kind < 0.38:
            return hostile._nest(chance.choice((30, 60, 300)))
        if kind < 0.6:
            return chance.choice(hostile.TEXTS)
        if kind < 0.7:
            return chance.choice((None, True, False))
        if kind < 0.75:
            return chance.choice(hostile.NOT_FINITE)
        if kind < 0.85:
            return chance.uniform(-1e12, 1e12)
        return chance.choice(hostile.NUMBERS)

    def text(self) -> bytes:
        """The JSON of a good answer with one to four runs of bytes changed, removed, repeated or put in."""
        chance = self._random
        text = bytearray(chance.choice(self._goods)[2])
        for _change in range(chance.randint(1, 4)):
            at = chance.randrange(len(text) + 1)
            end = min(at + chance.choice((1, 1, 2, 8, 64)), len(text))
            what = chance.randrange(5)
            if what == 0 and at < len(text):
                text[at] ^= 1 << chance.randrange(8)
            elif what == 1:
                del text[at:end]
            elif what == 2:
                text[at:at] = text[at:end]
            elif what == 3:
                text[at:at] = chance.choice(FRAGMENTS)
            else:
                text[at:end] = chance.randbytes(end - at)
        return bytes(text)


def hold(check: Check, goods: Sequence[Any], cases: int, seed: int = 0) -> str:
    """``check`` raises nothing for so many bad answers, some by value and some by text that JSON still reads.

    What JSON does not read is refused at the door that all answers pass (``typed.loads``), with its own error alone. It comes
    on top of ``cases``.

    Returns what was done. Raises AssertionError with seed and number of the case.
    """
    mutator, refused, began = Mutator(goods, seed), 0, time.process_time()
    held = 0
    while held < cases:
        number = held + refused
        given: Any = mutator.value() if number % 2 else mutator.text()
        with _reporting(number, seed, given):
            if isinstance(given, bytes):
                try:
                    given = typed.loads(given.decode("utf-8", "replace"))
                except typed.BadAnswer:
                    refused += 1
                    continue
            check(given)
        held += 1
    return f"{cases} cases of seed {seed}, {refused} more refused as no JSON, {_spent(began)}"


def hold_runs(check: Callable[[list[Result]], object], good: Any, cases: int, seed: int = 0) -> str:
    """``check`` raises nothing for runs of one and more bad results, of which none, some or all failed; a result is a case."""
    mutator, chance, began = Mutator([good], seed), random.Random(seed), time.process_time()
    held = runs = 0
    while held < cases:
        failing = chance.choice((0.0, 0.1, 0.5, 1.0))
        results = [
            (chance.choice(("a1", "a2", "b1")), mutator.value(), chance.random() < failing)
            for _result in range(chance.randint(1, MOST_RESULTS))
        ]
        with _reporting(held, seed, results):
            check(results)
        held, runs = held + len(results), runs + 1
    return f"{held} results in {runs} runs of seed {seed}, {_spent(began)}"


@contextlib.contextmanager
def _reporting(number: int, seed: int, given: Any) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise AssertionError(
            f"case {number} of seed {seed}: {type(error).__name__}: {error}; {repr(given)[:3000]}"
        ) from error


def _spent(began: float) -> str:
    return f"{time.process_time() - began:.0f} s of processor time"
