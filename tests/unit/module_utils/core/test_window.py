"""A daily window: when it is open, how long it is not, and what is none."""

from __future__ import annotations

import datetime

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.window import Window


def at(clock: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(f"2026-11-22T{clock}:00+00:00")


@pytest.mark.parametrize(
    ("window", "clock", "is_open", "minutes"),
    [
        ("02:00-04:00", "01:59", False, 1),
        ("02:00-04:00", "02:00", True, 0),
        ("02:00-04:00", "03:59", True, 0),
        ("02:00-04:00", "04:00", False, 22 * 60),
        ("22:00-04:00", "23:00", True, 0),
        ("22:00-04:00", "00:00", True, 0),
        ("22:00-04:00", "12:00", False, 600),
        ("06:00-06:00", "05:00", True, 0),
        ("02:30-04:45", "02:29", False, 1),
        ("02:30-04:45", "02:30", True, 0),
        ("02:30-04:45", "04:44", True, 0),
        ("02:30-04:45", "04:45", False, 21 * 60 + 45),
        ("22:15-23:59", "23:58", True, 0),
    ],
)
def test_window(window: str, clock: str, is_open: bool, minutes: int) -> None:
    parsed = Window.parse(window)
    assert (parsed.is_open(at(clock)), parsed.minutes_until_open(at(clock))) == (is_open, minutes)
    assert str(parsed) == window


def test_the_window_is_in_utc() -> None:
    elsewhere = datetime.datetime.fromisoformat("2026-11-22T04:30:00+02:00")
    assert Window.parse("02:00-04:00").is_open(elsewhere)


@pytest.mark.parametrize("text", ["", "2-4", "2:00-04:00", "02:00", "25:00-26:00", "02:00-04:00 CET", "02:00 - 04:00"])
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(ValueError, match="HH:MM-HH:MM in UTC"):
        Window.parse(text)
