"""Survey every host and plan the run: the action behind lockstep.vllm.plan (documented in plugins/modules/plan.py)."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.utils.vars import load_extra_vars

from ansible_collections.lockstep.vllm.plugins.module_utils.core import data_tables
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import plan, render, waves
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import Cluster, ClusterAction


class ActionModule(ClusterAction):
    """One call per host, all hosts at once; then the plan, on the controller."""

    _VALID_ARGS = frozenset({"mode", "action", "policy"})

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = self._task.args
        mode = self._mode(arguments)
        cluster = self.cluster(variables)
        now = datetime.datetime.now(datetime.UTC)
        found = {} if cluster.topology.problems else self.survey(cluster, variables, preflight=True)
        try:
            policy = waves.Policy.from_mapping(arguments.get("policy") or {})
        except ValueError as error:
            raise AnsibleActionFail(str(error)) from error
        limit = set(variables["ansible_play_hosts_all"])
        planned = plan.build(
            cluster.topology,
            cluster.wanted,
            found,
            policy,
            mode,
            now,
            limit,
            data_tables.read("known_issues"),
        )
        routers = [] if mode in ("abort", "verify") else _due_routers(cluster, found, limit)
        refusals = [*planned.refusals, *_router_refusals(cluster, found, limit)]
        if refusals:
            return {
                "failed": True,
                "msg": render.refused(refusals),
                "refusals": refusals,
                "lockstep_plan": {"refusals": refusals},
            }
        run = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
        return {
            **planned.as_dict(),
            "lockstep_plan": for_report(planned, run),
            "mode": mode,
            "began": now.timestamp(),
            "run": run,
            "members": render.members(planned, cluster.topology, found),
            "routers": routers,
            "floor": waves.floor_of(policy, len(cluster.topology.replicas)),
            "bake": {
                "seconds": policy.bake_seconds,
                "latency_factor": policy.bake_latency_factor,
                "error_share": policy.bake_error_share,
                "requests": policy.bake_requests,
            },
            "text": render.render(planned, cluster.topology, found),
            "fingerprints": {
                host: (found[host].state or {}).get("fingerprint") for wave in planned.waves for host in wave.hosts
            },
            "changed": False,
        }

    def _mode(self, arguments: Mapping[str, Any]) -> plan.Mode:
        asked = arguments.get("mode", "converge")
        found = next((mode for mode in plan.MODES if mode == asked), None)
        if found is None:
            raise AnsibleActionFail(f"mode is {asked!r}, wanted one of {', '.join(plan.MODES)}")
        try:
            found = plan.mode_of(arguments["action"]) if "action" in arguments else found
        except ValueError as error:
            raise AnsibleActionFail(str(error)) from error
        extra = load_extra_vars(self._loader)
        if "rollout_action" in extra and "action" not in arguments:
            raise AnsibleActionFail(
                "rollout_action is asked of playbooks/upgrade_driver.yml alone; nothing was changed. "
                f"Next: ansible-playbook playbooks/upgrade_driver.yml -e rollout_action={extra['rollout_action']}"
            )
        declared = sorted({*plan.DRIVER} & {*extra})
        if found == "abort" and declared:
            raise AnsibleActionFail(
                f"-e {declared[0]}=… says where to go, and aborting goes back to what each host ran before the roll. "
                "Next: ansible-playbook playbooks/upgrade_driver.yml -e rollout_action=abort"
            )
        return found


def for_report(planned: plan.Plan, run: str) -> dict[str, Any]:
    """What the callback reads of a plan (plugin_utils/report/events.py)."""
    return {
        "run": run,
        "waves": [wave.as_dict() for wave in planned.waves],
        "skipped": dict(planned.skipped),
        "warnings": list(planned.warnings),
    }


def _router_refusals(cluster: Cluster, found: Mapping[str, plan.Found], limit: set[str]) -> list[str]:
    return [
        f"{host} (router) does not answer: {found[host].error}. Next: ansible {host} -m ansible.builtin.ping"
        for host in cluster.routers
        if host in limit and host in found and found[host].state is None
    ]


def _due_routers(cluster: Cluster, found: Mapping[str, plan.Found], limit: set[str]) -> list[str]:
    return [
        host
        for host in cluster.routers
        if host in limit and plan.router_reason(cluster.wanted[host], found[host].state or {})
    ]
