"""Setting and clearing faults in a node."""

from __future__ import annotations

import json

from testbed.lib import cluster
from testbed.lib.errors import TestbedError, UsageError
from testbed.lib.fault_catalog import KINDS, fault_text
from testbed.lib.layout import Instance

DIRECTORY = "/var/lib/lockstep-testbed/faults"
APPLY = "/usr/lib/lockstep-testbed/faults"


def set_fault(
    instance: Instance, host: str, name: str, value: str | None, when_driver: str | None, only_multihost: bool
) -> None:
    """Set a fault; it stays, over reboots, until it is cleared."""
    text = fault_text(name, value, when_driver, only_multihost)
    cluster.require(instance, host)
    _in_node(instance, host, f"cat > {DIRECTORY}/{name}", text)
    _in_node(instance, host, f"{APPLY} apply")


def clear(instance: Instance, host: str, name: str | None) -> list[str]:
    """Clear one fault, or all of a host; return what was set."""
    if name is not None and name not in KINDS:
        raise UsageError(f"no fault {name}; testbed/testbed faults lists them")
    cluster.require(instance, host)
    before = current(instance, host)
    gone = [name] if name in before else [] if name else before
    if gone:
        _in_node(instance, host, f"cd {DIRECTORY} && rm -f {' '.join(gone)}")
        _in_node(instance, host, f"{APPLY} apply")
    return [one for one in gone if one]


def current(instance: Instance, host: str) -> list[str]:
    """Names of the faults that are set on a host."""
    return cluster.inside(instance, host, "ls", DIRECTORY).split()


def describe(instance: Instance, host: str) -> list[str]:
    """One line for each fault that is set on a host."""
    lines = []
    for name in current(instance, host):
        fields = json.loads(cluster.inside(instance, host, "cat", f"{DIRECTORY}/{name}"))
        parts = [name, fields["value"]]
        parts += [f"when driver {fields['when_driver']}"] if fields["when_driver"] else []
        parts += ["across hosts only"] if fields["only_multihost"] else []
        lines.append(" ".join(part for part in parts if part))
    return lines


def _in_node(instance: Instance, host: str, script: str, stdin: str | None = None) -> None:
    done = cluster.inside(instance, host, "sh", "-c", f"{script} 2>&1", stdin=stdin)
    if done.strip():
        raise TestbedError(f"{host}: {done.strip()}")
