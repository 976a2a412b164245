"""What is known of the rungs, kept on the head per layout: ``/var/lib/lockstep/engine/ladder.json``."""

from __future__ import annotations

import dataclasses

from ..core import records
from ..runtime import state as runtime_state
from . import config as engine_config
from . import ladder, state
from .ladder import Ladder
from .layouts import Layout
from .replica import Replica

_LIMIT = 32 << 20
"""Bytes; the eager engine's tokens are kept with their alternatives."""


def load(replica: Replica, layout: Layout) -> Ladder:
    """What is known for this layout, fingerprint and command; nothing where one of them has changed."""
    config = replica.config
    lowest = engine_config.command("vllm", config, layout, config.rungs(layout)[0], replica.api_address)
    record = (records.read(state.LADDER, _LIMIT) or {}).get("layouts", {}).get(layout.name)
    platform = "cpu" if str(runtime_state.state().get("vllm")).endswith("+cpu") else "cuda"
    known = ladder.from_record(record, ladder.key(replica.stamp.get("hosts", {}), lowest))
    return dataclasses.replace(known, platform=platform)


def save(layout: Layout, known: Ladder) -> None:
    """Keep it, beside what is known of other layouts."""
    record = records.read(state.LADDER, _LIMIT) or {}
    others = {name: entry for name, entry in record.get("layouts", {}).items() if name != layout.name}
    records.write(state.LADDER, {"layouts": {**others, layout.name: ladder.as_record(known)}})
