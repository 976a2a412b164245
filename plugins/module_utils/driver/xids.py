"""What Xids and SXids mean: NVIDIA's catalogue as data, and the worst of what a host has seen. Pure.

The tables are ``data/xids.yml`` (every code) and ``data/nvlink5_xids.yml`` (the registers of 144 to 150).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypedDict

from ..core.codes import Code
from ..core.grouping import grouped
from .kernel_log import Kind, XidEvent

RECOVERY_CHANGED = 154
NVLINK5 = range(144, 151)


class Cause(Code):
    """Who caused it."""

    APPLICATION = "application"
    DRIVER = "driver"
    HARDWARE = "hardware"
    FABRIC = "fabric"


class Action(Code):
    """What ends it, the mildest first."""

    IGNORE = "ignore"
    RESTART_PROCESS = "restart_process"
    RESET = "reset"
    REBOOT = "reboot"
    REPLACE = "replace"


class LookAt(Code):
    """Where NVIDIA's table of NVLink 5 says to look next."""

    NOTHING = "nothing"
    LINK = "link"
    CABLES = "cables"
    PEER = "peer"
    SOFTWARE = "software"
    HOST = "host"
    OTHERS = "others"
    SUPPORT = "support"


_ORDER = list(Action)
FAILS_FROM = Action.RESET
AS_154 = "as_154"
# nvmlDeviceGpuRecoveryAction_t: none, reset, node reboot, drain P2P, drain and reset, IMEX domain, bus reset, system reboot
_RECOVERY = (
    Action.IGNORE,
    Action.RESET,
    Action.REBOOT,
    Action.RESET,
    Action.RESET,
    Action.REBOOT,
    Action.RESET,
    Action.REBOOT,
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of data/xids.yml."""

    kind: Kind
    code: int
    name: str
    cause: Cause
    action: Action
    meaning: str


@dataclasses.dataclass(frozen=True)
class Decode:
    """A row of data/nvlink5_xids.yml; ``intrinfo`` are (mask, bits) pairs, ``errors`` maps a status to an action and a hint."""

    code: int
    units: tuple[str, ...]
    intrinfo: tuple[tuple[int, int], ...]
    errors: Mapping[int, tuple[Action, LookAt]]


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """Both tables."""

    rows: Mapping[tuple[str, int], Row]
    nvlink5: tuple[Decode, ...] = ()


@dataclasses.dataclass(frozen=True)
class Seen:
    """All events of one code: the worst action of any, and the events that call for it, or for less.

    Attributes:
        row: of the catalogue; None where it has none.
        action: the worst.
        worst: the events with that action.
        others: the events with a milder one.
        look_at: where to look next, for the worst.
    """

    kind: Kind
    code: int
    row: Row | None
    action: Action
    worst: tuple[XidEvent, ...]
    others: tuple[XidEvent, ...] = ()
    look_at: tuple[LookAt, ...] = ()

    @property
    def fails(self) -> bool:
        return _ORDER.index(self.action) >= _ORDER.index(FAILS_FROM)


class XidRow(TypedDict):
    """One row of data/xids.yml, as far as it is read."""

    kind: Kind
    code: int
    name: str
    cause: str
    action: str
    meaning: str


class NvlinkRow(TypedDict):
    """One row of data/nvlink5_xids.yml, as far as it is read."""

    xid: int
    units: Sequence[str]
    intrinfo: Sequence[str]
    errors: Sequence[tuple[int, str, str]]


def parse(rows: Sequence[XidRow], nvlink5: Sequence[NvlinkRow] = ()) -> Catalogue:
    """The tables' rows as types.

    Raises:
        ValueError: a row has an unknown kind, cause, action or hint.
    """
    found: dict[tuple[str, int], Row] = {}
    for row in rows:
        if row["kind"] not in ("Xid", "SXid"):
            raise ValueError(f"data/xids.yml: kind {row['kind']!r} of code {row['code']}")
        code = int(row["code"])
        found[row["kind"], code] = Row(
            row["kind"], code, str(row["name"]), Cause(row["cause"]), Action(row["action"]), str(row["meaning"])
        )
    return Catalogue(found, tuple(_decode(row) for row in nvlink5))


def _decode(row: NvlinkRow) -> Decode:
    # What only Xid 154 decides calls for nothing by itself: 154 is an event of its own.
    actions = {AS_154: Action.IGNORE}
    return Decode(
        int(row["xid"]),
        tuple(row["units"]),
        tuple(_bits(pattern) for pattern in row["intrinfo"]),
        {
            int(status): (actions.get(action) or Action(action), LookAt(look_at))
            for status, action, look_at in row["errors"]
        },
    )


def _bits(pattern: str) -> tuple[int, int]:
    """The bits that a pattern of ``0``, ``1`` and ``-`` (any), the highest first, asks for, and their values."""
    if len(pattern) != 32 or set(pattern) - set("01-"):
        raise ValueError(f"data/nvlink5_xids.yml: intrinfo {pattern!r}")
    return int(pattern.translate({ord("0"): "1", ord("-"): "0"}), 2), int(pattern.replace("-", "0"), 2)


def assess(events: Sequence[XidEvent], catalogue: Catalogue) -> list[Seen]:
    """What was seen, by code; the worst counts."""
    codes = grouped(((event["kind"], event["code"]), event) for event in events)
    return [_seen(kind, code, found, catalogue) for (kind, code), found in sorted(codes.items())]


def _seen(kind: Kind, code: int, events: Sequence[XidEvent], catalogue: Catalogue) -> Seen:
    assessed = [(event, *action_of(event, catalogue)) for event in _latest(events)]
    worst = max((action for _event, action, _look_at in assessed), key=_ORDER.index)
    hints = [look_at for _event, action, look_at in assessed if action is worst and look_at]
    return Seen(
        kind,
        code,
        catalogue.rows.get((kind, code)),
        worst,
        tuple(event for event, action, _look_at in assessed if action is worst),
        tuple(event for event, action, _look_at in assessed if action is not worst),
        tuple(dict.fromkeys(hint for hint in hints if hint is not LookAt.NOTHING)),
    )


def _latest(events: Sequence[XidEvent]) -> list[XidEvent]:
    """All events; of Xid 154, which reports changes, the last of each device."""
    last = {event["device"]: event for event in sorted(events, key=lambda event: event["last"])}
    return [event for event in events if event["code"] != RECOVERY_CHANGED or last[event["device"]] is event]


def action_of(event: XidEvent, catalogue: Catalogue) -> tuple[Action, LookAt | None]:
    """What this event calls for, and where to look next."""
    row = catalogue.rows.get((event["kind"], event["code"]))
    listed = row.action if row else Action.RESET
    if event["code"] == RECOVERY_CHANGED and event["kind"] == "Xid":
        number = event["recovery"]
        return (_RECOVERY[number] if number is not None and number < len(_RECOVERY) else listed), None
    worded = {"fatal": Action.RESET, "non_fatal": Action.IGNORE, None: listed}[event["severity"]]
    if event["kind"] == "SXid" or event["code"] not in NVLINK5:
        return (worded if event["kind"] == "SXid" else listed), None
    decoded = _decoded(event, catalogue.nvlink5)
    if decoded is None:
        return worded, None
    action, look_at = decoded
    # What the kernel calls fatal has taken a link down, and only a reset brings it up.
    return (max(action, worded, key=_ORDER.index) if event["severity"] == "fatal" else action), look_at


def _decoded(event: XidEvent, rows: Sequence[Decode]) -> tuple[Action, LookAt] | None:
    if len(event["registers"]) != 2:
        return None
    intrinfo, status = event["registers"]
    for layout in range(2):
        for row in rows:
            mask, bits = row.intrinfo[min(layout, len(row.intrinfo) - 1)]
            if row.code == event["code"] and event["unit"] in row.units and intrinfo & mask == bits:
                found = _of_status(status, row.errors)
                if found:
                    return found
    return None


def _of_status(status: int, errors: Mapping[int, tuple[Action, LookAt]]) -> tuple[Action, LookAt] | None:
    if status in errors:
        return errors[status]
    of_bits = [way for bit, way in errors.items() if bit and not bit & (bit - 1) and status & bit]
    return max(of_bits, key=lambda way: _ORDER.index(way[0]), default=None)
