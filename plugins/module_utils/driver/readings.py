"""A reading of nvidia-smi: a figure, or the reason why there is none.

Where NVML cannot give a figure, nvidia-smi writes NVML's own words for the error in its place, with exit status 0. They
are distinguished here, once: what a card does not have is no fault, what a card does not answer is one.

Words: nvmlErrorString of nvml.h, and the texts in nvidia-smi of 418, 470, 535, 550 and 580.
"""

from __future__ import annotations

import enum


class Absence(enum.Enum):
    """Why a field holds no figure."""

    NOT_SUPPORTED = "not supported"
    """This card or this driver has no such figure, or this user may not see it."""
    UNREADABLE = "unreadable"
    """The driver asked the card, and the card or its firmware gave no answer."""
    LOST = "lost"
    """The driver has given the card up: it fell off the bus or waits for a reset."""


Reading = str | Absence

_TEXTS = {
    Absence.NOT_SUPPORTED: (
        "", "n/a", "not supported", "feature is not supported", "not found", "function not found", "no data",
        "requested functionality has been deprecated", "insufficient permissions",
    ),
    Absence.UNREADABLE: (
        "unknown error", "err!", "error", "timeout", "uninitialized", "driver not loaded", "interrupt request issue",
        "insufficient external power", "corrupted inforom", "system is not in ready state",
        "gpu access blocked by the operating system",
    ),
    Absence.LOST: ("gpu is lost", "gpu requires reset", "gpu requires restart"),
}  # fmt: skip
_KINDS = {text: absence for absence, texts in _TEXTS.items() for text in texts}


def reading(text: str | None) -> Reading:
    """The figure in ``text``, or why it is none; a field that is not there is not supported."""
    value = (text or "").strip()
    return _KINDS.get(value.strip("[]<>").strip().lower().rstrip("."), value)


def figure(value: Reading) -> str | None:
    """The figure; None where there is none, for whatever reason."""
    return None if isinstance(value, Absence) else value
