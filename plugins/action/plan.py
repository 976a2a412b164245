"""Probe every host and plan the run: the action behind lockstep.vllm.plan (documented in plugins/modules/plan.py)."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Collection, Mapping
from typing import Any

import yaml

from ansible_collections.lockstep.vllm.plugins.module_utils.core import data_tables
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop, StopError
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import needs, plan, render, run_plan
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.observed import Observed
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.policy import Policy
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.states import Mode
from ansible_collections.lockstep.vllm.plugins.modules import plan as documented
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals, stops
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import Cluster, ClusterAction

_CHECKED = ("type", "elements", "choices", "default", "required")
_ROLL = "ansible-playbook playbooks/upgrade_driver.yml"


def argument_spec(options: Mapping[str, Any]) -> dict[str, Any]:
    """The argument spec that documented ``options`` mean; suboptions have their defaults also where none is given."""
    spec: dict[str, Any] = {}
    for name, option in options.items():
        spec[name] = {key: option[key] for key in _CHECKED if key in option}
        if "suboptions" in option:
            spec[name] |= {"options": argument_spec(option["suboptions"]), "apply_defaults": True}
    return spec


SPEC = argument_spec(yaml.safe_load(documented.DOCUMENTATION)["options"])


class ActionModule(ClusterAction):
    """One call per host, all hosts at once; then the plan, on the controller."""

    _VALID_ARGS = frozenset(SPEC)

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _validated, arguments = self.validate_argument_spec(argument_spec=SPEC)
        variables = task_vars or {}
        mode = self._mode(arguments)
        try:
            policy = Policy.parse(**arguments["policy"])
        except ValueError as error:
            raise stops.fail(Stop.of(error)) from error
        cluster = self.cluster(variables)
        run = plan.Run(mode, policy, datetime.datetime.now(datetime.UTC), set(variables["ansible_play_hosts_all"]))
        answers = {} if cluster.topology.problems else self.probe(cluster, variables, preflight=True)
        observed = {host: Observed.parse(each.value, each.error, each.reachable) for host, each in answers.items()}
        return result(cluster, observed, run, fingerprints={
            host: each.value.get("fingerprint") for host, each in answers.items() if each.value
        })  # fmt: skip

    def _mode(self, arguments: Mapping[str, Any]) -> Mode:
        mode = Mode(arguments["mode"])
        try:
            mode = plan.mode_of(arguments["action"]) if arguments["action"] is not None else mode
        except StopError as error:
            raise stops.fail(error.stop) from error
        extra = ansible_internals.extra_variables(self._loader)
        if "rollout_action" in extra and arguments["action"] is None:
            cause = "rollout_action is for playbooks/upgrade_driver.yml alone; nothing was changed"
            raise stops.fail(Stop(cause, f"{_ROLL} -e rollout_action={extra['rollout_action']}"))
        declared = sorted({*needs.DRIVER} & {*extra})
        if mode is Mode.ABORT and declared:
            cause = f"-e {declared[0]}=… says where to go, and aborting goes back to what each host ran before the roll"
            raise stops.fail(Stop(cause, f"{_ROLL} -e rollout_action=abort"))
        return mode


def result(
    cluster: Cluster, observed: Mapping[str, Observed], run: plan.Run, fingerprints: Mapping[str, Any]
) -> dict[str, Any]:
    """What the action returns: the plan, or its refusals."""
    planned = plan.build(cluster.topology, cluster.wanted, observed, run, data_tables.read("known_issues"))
    refused = [*planned.refusals, *_router_refusals(cluster, observed, run.limit or ())]
    if refused:
        following = next((refusal.next for refusal in refused if refusal.next), "")
        return {
            "failed": True,
            "msg": render.refused(refused),
            **({"next": following} if following else {}),
            "lockstep_plan": {"refusals": [str(refusal) for refusal in refused], "waves": []},
        }
    routers = [] if run.mode in (Mode.ABORT, Mode.VERIFY) else _due_routers(cluster, observed, run.limit or ())
    name = f"{run.now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    hosts = [host for wave in planned.waves for host in wave.hosts]
    return {
        "changed": False,
        "lockstep_plan": run_plan.as_dict(name, run, planned, cluster.topology, observed, routers),
        "fingerprints": {host: fingerprints.get(host) for host in hosts},
    }


def _router_refusals(cluster: Cluster, observed: Mapping[str, Observed], limit: Collection[str]) -> list[Stop]:
    return [
        Stop(f"{host} (router) does not answer: {observed[host].error}", f"ansible {host} -m ansible.builtin.ping")
        for host in cluster.routers
        if host in limit and host in observed and observed[host].state is None
    ]


def _due_routers(cluster: Cluster, observed: Mapping[str, Observed], limit: Collection[str]) -> list[str]:
    return [host for host in cluster.routers if host in limit and needs.router_reason(observed[host].state)]
