"""States of hosts as a probe returns them, for the tests of what is made of them."""

from __future__ import annotations

from typing import Any

RUNS = {"driver": "550.127.05", "driver_packages": "550.127.05", "kernel": '6.1"0', "ray": "2.60.0"}

HEAD: dict[str, Any] = {
    "clock": 1795309800.5,
    "boot": {"id": "b1", "since": "1795223400", "monotonic_us": "1"},
    "host": {
        "host": "a1",
        "replica": "replica_a",
        "ray_role": "head",
        "gpus": 8,
        "peers": {"a1": "10.0.0.11", "a2": "10.0.0.12"},
    },
    "fingerprint": RUNS,
    "fingerprint_digest": "d1",
    "stamps": {
        "host": {"fingerprint": RUNS, "at": "2026-11-22T01:00:00Z"},
        "replica": {"hosts": {"a1": "d1", "a2": "d2"}},
    },
    "quarantine": {"kind": "failed", "at": "2026-11-22T01:00:00Z", "reason": "x"},
    "units": {
        "lockstep-ray.service": {"load": "loaded", "active": "active", "restarts": 2},
        "haproxy.service": {"load": "not-found", "active": "inactive", "restarts": 0},
    },
    "driver": {
        "loaded_version": "550.127.05",
        "package_version": "550.127.05",
        "smi_failure": None,
        "gpus": [{}] * 7,
        "xids": [{"code": 79, "count": 2}, {"code": 31, "count": 1}],
        "pending_reboot": True,
    },
    "manifest": {"gpu_host": {"current": True, "drifted": ["/etc/hosts"]}},
    "filter": {"wanted": True, "problem": ""},
    "tunnel": {"wanted": True, "problem": "", "handshakes": {"a2": 1795309790, "a3": None}},
    "ray": {
        "head": "up",
        "nodes": [
            {"host": "a1", "alive": True, "gpus": 8.0, "gpus_free": 0.5},
            {"host": "a2", "alive": False, "gpus": 8.0, "gpus_free": 8.0},
        ],
    },
    "engine": {
        "phase": "serving",
        "ready": True,
        "since": "2026-11-22T01:00:00Z",
        "last_completion": "2026-11-22T01:09:58Z",
        "layout": "wide",
        "tensor_parallel_size": 8,
        "pipeline_parallel_size": 2,
        "rung": "full",
        "restarts": 1,
        "failures": 0,
        "suspect": {
            "code": "stopped",
            "reason": "rank 1 on a2 (pid 7) is stopped (state T)",
            "where": [{"host": "a2", "rank": 1, "pid": 7}],
            "evidence": ["a2:/var/lib/lockstep/engine/x"],
        },
    },
    "lock": {"run": "r1", "heartbeat": "2026-11-22T01:00:00Z"},
    "request": {"action": "pause"},
    "runtime": {"error": "no such folder"},
}
WORKER = {
    **{
        key: HEAD[key]
        for key in ("clock", "fingerprint", "fingerprint_digest", "units", "driver", "manifest", "runtime")
    },
    "host": {**HEAD["host"], "host": "a2", "ray_role": "worker"},
    "stamps": {"host": {"fingerprint": {**RUNS, "kernel": "5.15"}}, "replica": None},
    "quarantine": None,
    "engine": None,
    "lock": None,
    "request": None,
}
