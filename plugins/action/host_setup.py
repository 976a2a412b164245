"""Gather what host_setup puts onto a host: the library and tables of this project, and the host's place in the cluster."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import topology
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import stops
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import ClusterAction
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.settings import ROOT


class ActionModule(ClusterAction):
    """Files and topology come from the controller, everything else from the task."""

    BYPASS_HOST_LOOP = False
    _VALID_ARGS = frozenset({"interface", "gpus", "gpu_model", "zone", "address", "peers", "head"})

    def act(self, arguments: Values, task_vars: Values) -> Values:
        files = {"sources": library(), "tables": tables()}
        if "interface" in arguments:
            host = task_vars["inventory_hostname"]
            stated = {name: arguments.pop(name, None) for name in ("address", "peers", "head")}
            in_group = topology.ROOT in task_vars["groups"]
            replica = self._grouped_replica(host, task_vars) if in_group else stated_replica(host, **stated)
            named = {"name": replica.name, "head": replica.head, "addresses": dict(replica.addresses)}
            arguments |= {"host": host, "replica": named}
        return dict(self._execute_module("lockstep.vllm.host_setup", {**arguments, **files}, task_vars=task_vars))

    def _grouped_replica(self, host: str, task_vars: Values) -> topology.Replica:
        read = self.cluster(task_vars, only=host).topology
        try:
            return read.replica_of(host)
        except KeyError as error:
            raise stops.fail(Stop(f"{host}: {'; '.join(read.problems) or 'it belongs to no replica'}")) from error


def stated_replica(
    host: str, address: str | None, peers: Mapping[str, str] | None, head: str | None
) -> topology.Replica:
    """The replica of ``host`` where the inventory has no group ``lockstep``: the stated peers, or the host by itself.

    Raises:
        AnsibleActionFail: the peers or the head cannot mean a replica.
    """
    addresses = {str(name): str(where) for name, where in (peers or {host: address or host}).items()}
    if host not in addresses:
        cause = f"{host} is not in gpu_host_peers ({', '.join(addresses)}): add it there with its address"
        raise stops.fail(Stop(cause))
    if head is None and len(addresses) == 1:
        head = host
    if head not in addresses:
        cause = f"{host}: gpu_host_head is {head or 'not set'}, and has to be one of {', '.join(addresses)} (gpu_host_peers)"
        raise stops.fail(Stop(cause))
    return topology.Replica(head, head, tuple(name for name in addresses if name != head), addresses)


@functools.cache
def library() -> dict[str, str]:
    """The text of every file of the package that hosts run, by its path below the package's folder."""
    folder = ROOT / "plugins" / "module_utils"
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*.py"))}
    return {"__init__.py": "", **{name: path.read_text(encoding="utf-8") for name, path in files.items()}}


@functools.cache
def tables() -> dict[str, str]:
    """Every table of data/ as JSON, by name."""
    return {f"{path.stem}.json": as_json(path) for path in sorted((ROOT / "data").glob("*.yml"))}


def as_json(path: Path) -> str:
    return json.dumps(yaml.safe_load(path.read_text(encoding="utf-8")), indent=1, sort_keys=True, default=str) + "\n"
