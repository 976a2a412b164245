"""Figures, and the words that stand where there is none."""

from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.driver.readings import Absence, figure, reading


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (None, Absence.NOT_SUPPORTED),
        ("N/A", Absence.NOT_SUPPORTED),
        ("[N/A]", Absence.NOT_SUPPORTED),
        ("[Not Supported]", Absence.NOT_SUPPORTED),
        ("Requested functionality has been deprecated", Absence.NOT_SUPPORTED),
        ("[Insufficient Permissions]", Absence.NOT_SUPPORTED),
        ("Unknown Error", Absence.UNREADABLE),
        ("[Unknown Error]", Absence.UNREADABLE),
        ("ERR!", Absence.UNREADABLE),
        ("GPU is lost", Absence.LOST),
        ("[GPU requires reset]", Absence.LOST),
        ("  P0 ", "P0"),
        ("None", "None"),
        ("0", "0"),
        ("Enabled", "Enabled"),
    ],
)
def test_reading(text: str | None, kind: Absence | str) -> None:
    assert reading(text) == kind
    assert figure(reading(text)) == (kind if isinstance(kind, str) else None)
