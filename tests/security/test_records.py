"""Root reads what the user who serves may write: nothing that he puts there is followed, waited for, or taken for a record."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records, untrusted
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import state as engine_state
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.states import Target
from ansible_collections.lockstep.vllm.plugins.module_utils.host import metrics, probe

from .conftest import PYTHON, SECRET, USER, Plant, as_user

SERVES = {"phase": "serving", "reason": "layout a, rung none", "ready": True, "restarts": 2, "pid": 7}
PLANTED: dict[str, tuple[str, Any]] = {
    "a FIFO": ("fifo", ""),
    "a link to what never ends": ("link", "/dev/zero"),
    "a link to a file of root": ("link", "SECRET"),
    "a link to itself": ("link", "engine.json"),
    "a folder": ("folder", ""),
    "a socket": ("socket", ""),
    "nothing in it": ("file", ""),
    "findings that are numbers": ("file", json.dumps({**SERVES, "findings": [1]})),
    "a finding without its level": ("file", json.dumps({**SERVES, "findings": [{"finding": "x", "remediation": "y"}]})),
    "a number of 400 digits": ("file", json.dumps(SERVES).replace("2", "1" + "0" * 400)),
    "a number of 5,000 digits": ("file", json.dumps(SERVES).replace("2", "1" + "0" * 5000)),
    "no number": ("file", json.dumps({**SERVES, "restarts": float("nan")})),
    "infinity by another name": ("file", json.dumps(SERVES).replace("2", "1e999")),
    "a text for a number": ("file", json.dumps({**SERVES, "restarts": "2"})),
    "a truth for a number": ("file", json.dumps({**SERVES, "pid": True})),
    "a list for a text": ("file", json.dumps({**SERVES, "reason": ["x"]})),
    "a rung that is no object": ("file", json.dumps({**SERVES, "ladder": {"none": 1}})),
    "a phase that is none": ("file", json.dumps({**SERVES, "phase": "\u2028"})),
    "half a character": ("file", '{"phase": "serving", "reason": "\\ud800"}'),
    "deep objects": ("file", json.dumps({**SERVES, "ladder": {}})[:-2] + '{"a":' * 100 + "1" + "}" * 102),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_what_is_no_record_is_an_error_of_this_part_alone(
    planted: str, theirs: Path, secret: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, content = PLANTED[planted]
    plant(theirs / "engine.json", kind, secret if content == "SECRET" else content)
    monkeypatch.setattr(records, "ENGINE_STATE", theirs / "engine.json")
    state = probe.collect({})
    assert set(state["engine"] or {}) == {"error"}
    assert SECRET not in json.dumps(state)
    shown = metrics.render(metrics.samples(state))
    assert "lockstep_collect_errors" in shown
    assert "lockstep_host_info{" in shown


@pytest.mark.parametrize(
    ("character", "times"), [("[", 200_000), ('{"a":', 150_000), ("x", untrusted.LIMIT + 1), (" ", 1 << 26)]
)
def test_what_is_deep_or_long_is_an_error_too(
    character: str, times: int, theirs: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(theirs / "engine.json", "file", character, times)
    monkeypatch.setattr(records, "ENGINE_STATE", theirs / "engine.json")
    assert set(probe.collect({})["engine"] or {}) == {"error"}


def test_what_the_supervisor_reports_is_read(theirs: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(theirs / "engine.json", "file", json.dumps(SERVES))
    monkeypatch.setattr(records, "ENGINE_STATE", theirs / "engine.json")
    engine = probe.collect({})["engine"] or {}
    assert {name: engine[name] for name in SERVES} == SERVES


def test_a_file_of_another_owner_than_its_folder_is_not_read(theirs: Path, secret: Path) -> None:
    """A hard link to a file of root, where the kernel lets a user make one (fs.protected_hardlinks=0)."""
    os.link(secret, theirs / "engine.json")
    with pytest.raises(records.RecordError, match="belongs to user 0"):
        records.read(theirs / "engine.json")


SWAP = """
import os, sys
folder, victim = sys.argv[1:]
os.chdir(folder)
print("ready", flush=True)
while True:
    for name in os.listdir("."):
        if name.startswith(".record."):
            try:
                os.rename(name, "moved")
                os.symlink(victim, name)
            except OSError:
                pass
"""


def test_the_mode_of_a_file_that_root_writes_goes_to_no_other_file(theirs: Path, secret: Path) -> None:
    """As fast as he can, the user puts a link in the place of what root is about to finish."""
    swapping = subprocess.Popen(
        [PYTHON, "-I", "-c", SWAP, str(theirs), str(secret)],
        user=USER.pw_uid, group=USER.pw_gid, extra_groups=[], stdout=subprocess.PIPE, cwd="/",
    )  # fmt: skip
    try:
        assert swapping.stdout is not None
        assert swapping.stdout.readline() == b"ready\n"
        for number in range(300):
            try:
                records.write(theirs / "record", {"number": number})
                records.replace(theirs / "record", str(number))
            except FileNotFoundError:
                continue  # it was swapped before it could be moved
            assert secret.stat().st_mode & 0o777 == 0o600
    finally:
        swapping.kill()
        swapping.wait()
    assert secret.read_text() == SECRET


def test_requests_to_the_supervisor_are_root_s(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_state, "DRAIN", place / "requests" / engine_state.DRAIN.name)
    assert records.REQUESTS != records.RUN
    before = os.umask(0o077)
    try:
        engine_state.request(Target.DRAINED, "a driver")
    finally:
        os.umask(before)
    tried = as_user(
        "import os, sys; print(open(sys.argv[1]).read()); os.symlink('/etc/shadow', os.path.dirname(sys.argv[1]) + '/x')",
        engine_state.DRAIN,
    )
    assert "a driver" in tried.stdout, "the supervisor reads it"
    assert "PermissionError" in tried.stderr, "and can put nothing beside it"
