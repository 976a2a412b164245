"""Phases: the picture in the documentation shows these and no others."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ansible_collections.lockstep.vllm.plugins.module_utils.engine.states import EndCode, Phase

PICTURE = re.compile(r"^    (\S+) --> ([\w\[\]*]+)", re.MULTILINE)


def test_the_picture_shows_every_phase() -> None:
    (page,) = (Path(__file__).parents[4] / "docs").rglob("serving.md")
    text = page.read_text(encoding="utf-8")
    shown = {end for arrow in PICTURE.findall(text) for end in arrow} - {"[*]"}
    assert shown == {phase.value for phase in Phase}


def test_a_code_is_written_as_its_text() -> None:
    assert f"{Phase.GIVEN_UP}: {EndCode.DIED!s}" == "given_up: died"
    assert json.dumps({"phase": Phase.SERVING}) == '{"phase": "serving"}'
