"""Gather what host_setup puts onto a host: the library and tables of this project, and the host's place in the cluster."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleActionFail

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import ClusterAction
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.settings import ROOT


class ActionModule(ClusterAction):
    """Files and topology come from the controller, everything else from the task."""

    BYPASS_HOST_LOOP = False
    _VALID_ARGS = frozenset({"interface", "gpus", "gpu_model", "zone"})

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        host = variables["inventory_hostname"]
        topology = self.cluster(variables, only=host).topology
        try:
            replica = topology.replica_of(host)
        except KeyError as error:
            problems = "; ".join(topology.problems) or "it belongs to no replica"
            raise AnsibleActionFail(f"{host}: {problems}") from error
        arguments = {
            **self._task.args,
            "host": host,
            "replica": {"name": replica.name, "head": replica.head, "addresses": dict(replica.addresses)},
            "sources": library(),
            "tables": tables(),
        }
        return dict(self._execute_module("lockstep.vllm.host_setup", arguments, task_vars=variables))


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
