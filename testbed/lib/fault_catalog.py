"""Every fault that the testbed can set, with what it does and which value it takes. Data; the doing is in the node."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from testbed.lib.errors import UsageError

VERSION = r"\d{3}\.\d+(\.\d+)?"
NUMBER = r"\d+"
PORTS = r"\d+(-\d+)?(,\d+(-\d+)?)*"
NONE = ""


@dataclass(frozen=True)
class Kind:
    """One fault. ``value`` is a pattern that a value must match whole; ``default`` stands in where none is given."""

    name: str
    effect: str
    value: str = NONE
    example: str = ""
    default: str = ""
    required: bool = False


KINDS = {
    kind.name: kind
    for kind in (
        # packages and apt
        Kind("driver_install_fails", "the kernel module fails to build when the driver packages are configured"),
        Kind("driver_install_slow", "configuring the driver packages takes this many seconds", NUMBER, "60", "60"),
        Kind("dpkg_interrupted", "dpkg is killed while it configures the driver (strikes once)"),
        Kind("apt_lock_held", "another process holds apt's and dpkg's locks"),
        Kind("repository_unreachable", "the mirror turns this host away"),
        Kind("disk_full", "no space left in this directory", r"/[\w./-]+", "/opt", "/var/cache/apt/archives"),
        # module, fabric manager, GPU
        Kind("module_busy", "a process (dcgm-exporter) holds the GPU, so the module cannot be unloaded"),
        Kind("wrong_module_loads", "the module that loads reports this version", VERSION, "550.54.15", required=True),
        Kind("fm_mismatch", "fabric manager is of this version and refuses to start", VERSION, "550.54.15", "550.54.15"),
        Kind("gpu_missing", "this many GPUs are gone", NUMBER, "1", "1"),
        Kind("gpu_replaced", "the first GPU is another card from the next load of the driver on"),
        Kind("xid", "the kernel logs this Xid, now and after each boot", NUMBER, "79", "79"),
        Kind("ecc_errors", "this many uncorrected memory errors", NUMBER, "3", "3"),
        Kind("rows_pending", "a row remap is pending"),
        Kind("throttled", "the GPU is slowed down by heat"),
        Kind("pcie_narrow", "the GPU's PCIe link has 8 lanes of 16"),
        Kind("nvlink_down", "one NVLink is inactive"),
        Kind("memory_held", "a forgotten process (ray::orphan) holds this many MiB of GPU memory", NUMBER, "71680", "71680"),
        # host and network
        Kind("never_returns_from_reboot", "the next reboot does not end (until the fault is cleared)"),
        Kind("host_cut", "the network drops everything to and from the host, as testbed/testbed cut does"),
        Kind("names_unresolvable", "no name resolves, in neither direction"),
        Kind("port_blocked", "connections to these ports of the host are dropped", PORTS, "6379", required=True),
        # collectives and graphs; a graph is a torch.compile'd function: capture its first call, replay the later ones
        Kind("wrong_sum", "an all-reduce gives this host a wrong result"),
        Kind("slow_link", "every collective takes this many milliseconds longer", NUMBER, "200", "200"),
        Kind("rank_killed", "a process dies of SIGKILL at its first collective"),
        Kind("capture_hangs", "capturing a graph never ends"),
        Kind("capture_errors", "capturing a graph raises a CUDA-like error"),
        Kind("replay_hangs", "replaying a graph never ends"),
        Kind("replay_hangs_across_hosts", "replaying a graph never ends when ranks are on several hosts"),
        Kind("replay_wrong", "replaying a graph gives wrong numbers"),
        # engine
        Kind("engine_wont_start", "vLLM's engine fails to start with this message", r".+", "no GPU", "CUDA error: no GPU"),
        Kind("engine_capture_hangs", "vLLM hangs while it captures graphs (full: only full ones)", r"any|full", "full", "any"),
        Kind("engine_slow", "every step of vLLM's engine takes this many milliseconds longer", NUMBER, "500", "500"),
        Kind("engine_wedges", "vLLM answers /health with 200 and generates nothing"),
    )
}  # fmt: skip


def fault_text(name: str, value: str | None, when_driver: str | None, only_multihost: bool) -> str:
    """Check a fault that is to be set; return the content of its file."""
    if name not in KINDS:
        raise UsageError(f"no fault {name}; testbed/testbed faults lists them")
    kind = KINDS[name]
    if value is not None and kind.value == NONE:
        raise UsageError(f"fault {name} takes no value")
    if value is None and kind.required:
        raise UsageError(f"fault {name} needs a value, such as {kind.example}")
    if value is not None and not re.fullmatch(kind.value, value):
        raise UsageError(f"fault {name}: {value!r} is not a value for it, {kind.example!r} would be")
    if when_driver is not None and not re.fullmatch(VERSION, when_driver):
        raise UsageError(f"--when-driver {when_driver}: expected a driver version, such as 550.90.07")
    multihost = only_multihost or name == "replay_hangs_across_hosts"
    fields = {"value": value or kind.default, "when_driver": when_driver, "only_multihost": multihost}
    return json.dumps(fields) + "\n"
