"""Whatever JSON the user who serves writes: each parser of it gives its type, or the one error that its caller expects."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.lockstep.vllm.plugins.module_utils.core import host_record, records, typed, untrusted
from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import state as engine_state
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.record import EngineState
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import network, runner
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.network_observations import Observations
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks import events
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.result import GateResult
from ansible_collections.lockstep.vllm.plugins.module_utils.ray import firewall_live, tunnel

from . import mutations
from .conftest import PYTHON, USER

CASES, MANY = 300, int(os.environ.get("LOCKSTEP_FUZZ_CASES", "100000"))
"""Of each parser, here and in the long suite."""
SEED = int(os.environ.get("LOCKSTEP_FUZZ_SEED", "0"))

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)


def like(value: Any) -> st.SearchStrategy[Any]:
    """JSON like a good one, of which any part may be anything."""
    if isinstance(value, dict):
        same: st.SearchStrategy[Any] = st.fixed_dictionaries(
            {}, optional={name: like(each) for name, each in value.items()}
        )
    elif isinstance(value, list):
        same = st.lists(st.one_of(*map(like, value)), max_size=3) if value else st.just([])
    else:
        same = st.just(value)
    return st.one_of(same, same, same, same, ANYTHING)


ENGINE = {
    "phase": "serving", "reason": "r", "since": "2026-11-22T00:30:00Z", "ready": True, "layout": "a", "tensor_parallel_size": 1,
    "rung": "none", "ladder": {"none": {"verdict": "failed", "note": "x", "seconds": 1.5, "at": "2026-11-22T00:30:00Z"}}, "restarts": 1, "pid": 7, "evidence": ["/e"],
    "findings": [{"id": "i", "level": "info", "finding": "f", "remediation": "r", "source": "s", "line": "l", "count": 1}],
}  # fmt: skip
RESULT = as_json(GateResult("nccl", "pass", 1.0, host="a1", pair=("a1", "a2"), measured={"x": 1}, evidence=("/e",)))
EVENTS = [
    events.to_record(events.Started(0, "a1", "nccl", "gpu", "2.27.5")),
    events.to_record(events.Check(0, "a1", "all_reduce", "float", 8, 0)),
    events.to_record(events.Busbw(0, "a1", "all_reduce", 8, 0.1)),
]
SEEN: dict[str, Any] = {
    "interface": {"name": "eth0", "owns": True, "owners": ["eth0"], "mtu": 1500},
    "names": {"a1": {"problem": None, "seconds": 0.1}},
    "peers": {"a2": {"silent": None, "unreachable": [1], "zone": None, "mtu": 1500, "rtt_ms": 1.0, "clock_skew_seconds": 0.0}},
    "complaints": {"a2": [6379]},
    "limits": {"lockstep-ray.service": {"installed": True, "memlock_bytes": None, "shm_mib": 64}},
    "rdma": [], "control_error": None,
}  # fmt: skip


def engine_json(found: Any) -> None:
    try:
        parsed = EngineState.parse(untrusted.parse_json(json.dumps(found)))
    except (records.RecordError, ValueError):
        return
    assert json.loads(json.dumps(as_json(parsed), allow_nan=False))
    engine_state.advice(as_json(parsed))
    engine_state.failed(parsed.ladder)
    assert str(parsed).encode()


def test_a_good_engine_json_is_one() -> None:
    parsed = as_json(EngineState.parse(ENGINE))
    assert {name: parsed[name] for name in ENGINE} == ENGINE


def answers_of_a_replica_s_gates(found: Any) -> None:
    for answer in runner._answers(f"noise\nLOCKSTEP-RESULT {json.dumps(found)}\n") or []:
        assert isinstance(answer["result"], GateResult)
        answer["result"].is_of("nccl", ["a1"])


def events_of_ranks(found: Any) -> None:
    lines = [json.dumps(each) for each in found] if isinstance(found, list) else [json.dumps(found)]
    for event in events.parse("\n".join(lines)):
        assert dataclasses.asdict(event)["rank"] == event.rank


HOST = {"host": "a1", "address": "10.0.0.1", "interface": "eth0", "head": {"host": "a1"}, "peers": {"a1": "10.0.0.1"}}
TUNNEL = {"interface": "lockstep0", "address": "198.18.0.1", "port": 6389, "peers": {"a1": "198.18.0.1"}}


def tunnels_and_their_public_keys(found: Any, key: Any) -> None:
    if isinstance(found, dict):
        with contextlib.suppress(records.RecordError):
            assert host_record.through(HOST, found)["underlay"]["peers"] == HOST["peers"]
    with contextlib.suppress(tunnel.TunnelError):
        assert not set(tunnel.public_key("a1", key)) & set(" \t\n\r[]#")


def test_events_that_are_no_json_are_passed_over() -> None:
    good = json.dumps(EVENTS[0])
    assert len(events.parse('{"event":' * 100_000 + "\n" + good)) == 1


def observations_of_the_network(found: Any) -> None:
    identity = {"host": "a1", "address": "10.0.0.1", "interface": "eth0", "zone": None}
    try:
        seen = typed.parse(Observations, untrusted.parse_json(json.dumps(found)))
        result = network.evaluate(seen, identity, network.Limits(), 1.0)
    except (ValueError, KeyError):
        return
    assert result.verdict in ("pass", "fail")


def tunnels(found: Any) -> None:
    """The record and the key, of which one is good."""
    pair = found if isinstance(found, list) and len(found) == 2 else [found, found]
    tunnels_and_their_public_keys(*pair)


PARSERS: dict[str, tuple[Callable[[Any], None], Any]] = {
    "engine.json": (engine_json, ENGINE),
    "gates of a replica": (answers_of_a_replica_s_gates, [{"result": RESULT, "files": {"a": "b"}}]),
    "events of ranks": (events_of_ranks, EVENTS),
    "tunnel": (tunnels, [TUNNEL, "0" * 43 + "="]),
    "network": (observations_of_the_network, SEEN),
}


@pytest.mark.parametrize("parser", PARSERS)
def test_a_parser_gives_its_type_or_its_error(parser: str) -> None:
    check, good = PARSERS[parser]
    on_a_busy_machine = settings(max_examples=CASES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    on_a_busy_machine(given(like(good))(check))()
    mutations.hold(check, [good], CASES)


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("parser", PARSERS)
def test_a_hundred_thousand_times(parser: str) -> None:
    check, good = PARSERS[parser]
    print(parser, mutations.hold(check, [good], MANY, SEED))


def test_the_network_is_probed_by_the_user_who_serves(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe itself is a stand-in that says who it is; who starts it is real."""
    package = place / "lib/lockstep/gates"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    answer = {**SEEN, "control_error": "uid UID"}
    asked_by: list[int] = []

    def state() -> firewall_live.State:
        asked_by.append(os.getuid())
        return {"wanted": True, "problem": "its table is not loaded"}

    monkeypatch.setattr(firewall_live, "state", state)
    text = f"import json, os\nprint({json.dumps(answer)!r}.replace('UID', str(os.getuid())))"
    (package / "network_probe.py").write_text(text)
    monkeypatch.setattr(sys, "executable", PYTHON)
    identity = {"host": "a1", "address": "10.0.0.1", "interface": "eth0", "zone": None}

    def probed() -> GateResult:
        return network.check(
            identity,
            network.Limits(),
            seconds=20,
            wait=1,
            evidence=place / "e",
            library=place / "lib",
            user=USER.pw_name,
        )

    found = probed()
    assert f"on a1 uid {USER.pw_uid}" in found.cause
    assert "the packet filter of a1 is not as wanted: its table is not loaded" in found.cause
    assert asked_by == [os.getuid()], "root alone may ask nft, and reads what was loaded"
    (package / "network_probe.py").write_text("print('[' * 200000)")
    assert (probed().verdict, str(probed().code)) == ("fail", "probe_failed")
