"""The one door for a probe's answer: what a host says of itself, looked at before a plan or a status reads it.

A part that is not what probe.py returns becomes ``Unread``, as one that the host could not read: the rest of the host is
still seen, and so are all other hosts. What depends on no part (a fingerprint) makes the whole answer a bad one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ..core.shapes import BadAnswer, Shape, flag, items, maybe, number, one_of, record, table, text, whole
from ..engine.states import Phase, SuspectCode, Verdict
from .state import HostState

_TEXT = maybe(text)
_GPU = record(
    {"index": whole, "name": _TEXT, "uuid": _TEXT, "memory_mib": maybe(whole), "pci": _TEXT, "persistence": flag}
)
_DRIVER = record(
    {
        "packages": table(record({"version": _TEXT, "hold": flag, "half_installed": flag})),
        "package_versions": items(text),
        "package_version": _TEXT,
        "userspace_version": _TEXT,
        "loaded_version": _TEXT,
        "loaded_flavor": _TEXT,
        "libcuda_build_id": _TEXT,
        "fabric_manager": maybe(record({"package": _TEXT, "package_version": _TEXT, "version": _TEXT, "active": flag})),
        "nvswitches": whole,
        "fabric": record(
            {
                "switch_managers": whole,
                "ib_umad": flag,
                "spans_hosts": flag,
                "domain": _TEXT,
                "imex_active": maybe(flag),
            }
        ),
        "persistence": maybe(flag),
        "modules": table(record({"refcount": maybe(whole), "used_by": items(text)})),
        "refcount": maybe(whole),
        "gpus": items(_GPU),
        "pending_reboot": flag,
        "pending_reboot_packages": items(text),
        "dpkg_interrupted": flag,
        "smi_failure": maybe(record({"code": _TEXT, "text": _TEXT})),
        "smi_warnings": items(record({"code": _TEXT, "gpu": _TEXT, "text": _TEXT})),
        "holders": items(record({})),
        "xids": items(record({"count": whole})),
        "error": _TEXT,
    }
)
_VERSION = record({"version": text, "source": _TEXT, "flavor": _TEXT, "at": _TEXT}, needed=("version",))
_CHANGE = record(
    {
        "verified": maybe(_VERSION),
        "change": maybe(record({"from": maybe(_VERSION), "to": _VERSION, "began": _TEXT}, needed=("from", "to"))),
        "roll": maybe(record({"from": _VERSION, "over": _TEXT}, needed=("from",))),
        "error": _TEXT,
    }
)
_UNIT = record(
    {
        "load": text,
        "active": text,
        "sub": text,
        "enabled": text,
        "result": text,
        "restarts": whole,
        "since": _TEXT,
    }
)
_HOST = record(
    {
        "host": text,
        "replica": text,
        "ray_role": text,
        "address": text,
        "interface": text,
        "gpus": maybe(whole),
        "gpu_model": _TEXT,
        "zone": _TEXT,
        "head": record({"host": text, "address": text}),
        "peers": table(text),
        "nvswitch_ports": items(text),
        "error": _TEXT,
    }
)
_NODE = record(
    {
        "host": _TEXT,
        "address": _TEXT,
        "alive": flag,
        "draining": flag,
        "head": flag,
        "gpus": number,
        "gpus_free": number,
        "fingerprint": _TEXT,
        "since": number,
    },
    needed=("host",),
)
_STAMPED = {"at": _TEXT, "digest": text, "run": _TEXT, "error": _TEXT}
_FINDING = ("finding", "remediation", "level")
_SUSPECT = record(
    {
        "code": one_of(list(SuspectCode)),
        "reason": text,
        "where": items(record({"host": text, "rank": maybe(whole), "pid": maybe(whole)}, needed=("host",))),
        "evidence": items(text),
    },
    needed=("code", "reason"),
)
_ENGINE = record(
    {
        "phase": one_of(list(Phase)),
        **dict.fromkeys(("reason", "since", "layout", "rung", "last_completion", "last_failure", "error"), _TEXT),
        **dict.fromkeys(
            ("tensor_parallel_size", "pipeline_parallel_size", "restarts", "failures", "pid"), maybe(whole)
        ),
        "ready": flag,
        "ladder": maybe(table(record({"verdict": one_of(list(Verdict)), "note": text}, needed=("verdict",)))),
        "findings": maybe(items(record(dict.fromkeys(_FINDING, text), needed=_FINDING))),
        "evidence": maybe(items(text)),
        "suspect": maybe(_SUSPECT),
    },
    needed=("phase",),
)
_UNREAD = record({"error": text}, needed=("error",))
_STAMPS: Mapping[str, Shape] = {
    "host": maybe(record({**_STAMPED, "fingerprint": table(_TEXT)})),
    "replica": maybe(record({**_STAMPED, "hosts": table(text)})),
}
_OWNED = {"kind": _TEXT, "reason": _TEXT, "owner": _TEXT, "run": _TEXT, "at": _TEXT, "error": _TEXT}
LOCK = record(
    {
        **dict.fromkeys(("run", "holder", "controller", "machine", "boot", "namespace"), _TEXT),
        **dict.fromkeys(("since", "heartbeat", "taken_over", "error"), _TEXT),
        "pid": maybe(whole),
        "started": maybe(whole),
    }
)
REQUEST = maybe(record(dict.fromkeys(("action", "reason", "by", "at", "error"), _TEXT)))

_FILE = record({"size": whole, "sha256": _TEXT}, needed=("size", "sha256"))
_MODEL = record(
    {
        "path": text,
        "kind": one_of(("absent", "folder", "file")),
        "files": table(_FILE),
        "weights": table(whole),
        "missing": items(text),
        "readable_by": table(flag),
        "free_mib": maybe(whole),
        "error": _TEXT,
    }
)

_CARRIER = record({"kernel": flag, "tun": flag, "port_taken": flag, "mtu": table(whole), "error": _TEXT})

PARTS: Mapping[str, Shape] = {
    "os": record({"secure_boot": maybe(flag), "error": _TEXT, **dict.fromkeys(
        ("distribution", "like", "version", "codename", "kernel", "arch", "python", "hostname"), text)}),
    "boot": table(text),
    "driver": _DRIVER,
    "runtime": table(_TEXT),
    "units": table(_UNIT),
    "host": maybe(_HOST),
    "quarantine": maybe(record(_OWNED)),
    "change": maybe(_CHANGE),
    "previous": maybe(record({"run": _TEXT, "at": _TEXT, "roles": items(text), "runtime": _TEXT, "error": _TEXT})),
    "engine": maybe(_ENGINE),
    "lock": maybe(LOCK),
    "request": REQUEST,
    "manifest": table(record({"current": flag, "drifted": items(text)})),
    "disk_free_mib": table(whole),
    "addresses": table(items(text)),
    "networks": table(items(record({"address": text, "prefix": whole, "metric": maybe(whole)}, needed=("address", "prefix")))),
    "machine": record({"id": text, "pci_gpus": whole, "ephemeral_ports": items(whole), "reserved_ports": text,
                       "links": items(text), "rdma": items(text), "error": _TEXT}),
    **dict.fromkeys(("filter", "tunnel"), record({"wanted": flag, "problem": text, "error": _TEXT})),
    "preflight": record({"taken_ports": table(text), "names": table(_TEXT), "model": _MODEL, "tunnel": _CARRIER,
                         "drops_api_key": flag,
                         "error": _TEXT}),
    "ray": record({"head": one_of(("up", "down", "refused", "absent")), "error": _TEXT, "nodes": items(_NODE)}),
}  # fmt: skip
"""The parts of an answer that may each be ``Unread``."""
_WHOLE = record({"schema": whole, "clock": number, "fingerprint": table(_TEXT), "fingerprint_digest": text})


def read(answer: Any) -> HostState:
    """The state of a host, from what its probe answered. Parts that it lacks are missing here too.

    Raises:
        BadAnswer: it is no answer of a probe at all.
    """
    _WHOLE(answer)
    state = {name: _part(name, shape, answer[name]) for name, shape in PARTS.items() if name in answer}
    if "stamps" in answer:
        stamps = answer["stamps"]
        state["stamps"] = (
            {kind: _part(f"stamps.{kind}", shape, stamps.get(kind)) for kind, shape in _STAMPS.items()}
            if isinstance(stamps, Mapping)
            else {kind: {"error": f"stamps.{kind} cannot be found"} for kind in _STAMPS}
        )
    return cast(HostState, {**answer, **state})


def part(state: Any, name: str) -> Mapping[str, Any]:
    """One part of a state that has not been looked at; empty where it is missing, null, unread or not what it should be."""
    value = state.get(name) if isinstance(state, Mapping) else None
    looked_at = _part(name, PARTS[name], value) if isinstance(value, Mapping) else None
    return {} if looked_at is None or looked_at.get("error") else cast("Mapping[str, Any]", looked_at)


def _part(name: str, shape: Shape, value: Any) -> Any:
    """The part, or why it cannot be used."""
    try:
        if not (isinstance(value, Mapping) and set(value) == {"error"}):
            shape(value)
        else:
            _UNREAD(value)
    except BadAnswer as error:
        return {"error": str(error.within(name))}
    return value
