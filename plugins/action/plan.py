"""Probe every host and plan the run: the action behind lockstep.vllm.plan (documented in plugins/modules/plan.py)."""

from __future__ import annotations

import dataclasses
import datetime
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import yaml
from ansible import constants

from ansible_collections.lockstep.vllm.plugins.module_utils.core import data_tables, manifests
from ansible_collections.lockstep.vllm.plugins.module_utils.core.errors import StopError
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import (
    endpoints,
    findings,
    needs,
    own_ports,
    plan,
    refusals,
    render,
    request,
    run_plan,
    shared_address,
    topology,
)
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.driver_request import Known
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.needs import DesiredDriver
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.observed import Observed
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.policy import Policy
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.states import Mode
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.unexpected import Unexpected
from ansible_collections.lockstep.vllm.plugins.modules import plan as documented
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import (
    ansible_internals,
    certificates,
    configuration,
    driver_preflight,
    known_variables,
    routers,
    settings,
    stops,
    variables,
)
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import Cluster, ClusterAction
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.invocation import Invocation
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.settings import Declared

ROUTER_UNIT = "haproxy.service"
_ROLL = "ansible-playbook playbooks/upgrade_driver.yml"


SPEC = variables.argument_spec(yaml.safe_load(documented.DOCUMENTATION)["options"], apply_defaults=True)


Examine = Callable[[Mapping[str, Mapping[str, Any]]], driver_preflight.Findings]
"""Asks hosts, each with the driver that it is to run, whether their packages let it be installed."""


class ActionModule(ClusterAction):
    """One call per host, all hosts at once; then the plan, on the controller."""

    _VALID_ARGS = frozenset(SPEC)

    def act(self, arguments: Values, task_vars: Values) -> Values:
        return Invocation.of_this_run().in_result(self._planned(task_vars))

    def _planned(self, task_vars: Values) -> Values:
        extra = ansible_internals.extra_variables(self._loader)
        asked, unfit = _mode(self._task.args, extra)
        declared = self.declared(task_vars, further=known_variables.beside_roles(extra))
        found = variables.check(
            declared,
            extra=extra,
            limit=set(task_vars["ansible_play_hosts_all"]),
            without=needs.DRIVER if asked is Mode.ABORT else (),
            groups=task_vars["groups"],
            places=lambda host, name: next(map(ansible_internals.written_at, declared[host].named(name)), ""),
        )
        mode, policy, faults = self._arguments(asked, found)
        if found.refusals:
            misplaced = self._misplaced(task_vars, declared, found)
            return refused([*found.refusals, *misplaced, *([unfit] if unfit else []), *faults], found.warnings)
        if unfit or faults:
            raise stops.refuse(unfit or Stop("\n".join(map(str, faults))))
        cluster = self.cluster(task_vars, declared=declared)
        run = plan.Run(mode, policy, datetime.datetime.now(datetime.UTC), set(task_vars["ansible_play_hosts_all"]))
        answers = {} if cluster.topology.problems else self.probe(cluster, task_vars, preflight=True)
        observed = {host: Observed.parse(each.value, each.error, each.reachable) for host, each in answers.items()}
        for host, name in self.unresolved([host for host, each in observed.items() if not each.reachable], task_vars):
            observed[host] = dataclasses.replace(observed[host], unresolved=name)
        addresses = routers.declared_addresses(self._templar, task_vars)
        fingerprints = {host: each.value.get("fingerprint") for host, each in answers.items() if each.value}
        return result(
            cluster,
            observed,
            run,
            fingerprints,
            [
                *configuration.lacking(Invocation.of_this_run().playbook, constants.CALLBACKS_ENABLED),
                *found.warnings,
                *for_this_run_alone(extra, mode),
            ],
            lambda due: self._driver_findings(cluster, observed, due, task_vars),
            addresses,
            cluster.unexpected(answers),
            self._router_findings(cluster, observed, addresses, run),
        )

    def _router_findings(
        self, cluster: Cluster, observed: Mapping[str, Observed], addresses: Mapping[str, str], run: plan.Run
    ) -> list[findings.Finding]:
        """What is wrong with the certificates and the shared address of the routers in this run."""
        found: list[findings.Finding] = []
        for host in cluster.routers:
            if host in cluster.wanted and host in (run.limit or ()):
                mine = cluster.wanted[host].settings
                wrong = certificates.findings(mine, addresses[host], self._loader.get_text_file_contents, run.now)
                # Alike ones are reported once, with their hosts.
                found += [dataclasses.replace(each, stop=dataclasses.replace(each.stop, where=host)) for each in wrong]
                found += shared_address.findings(
                    host, mine, addresses, observed[host].state if host in observed else None
                )
        return findings.as_warnings(found) if run.mode in request.REPAIRS else found

    def _driver_findings(
        self,
        cluster: Cluster,
        observed: Mapping[str, Observed],
        due: Mapping[str, DesiredDriver],
        task_vars: Values,
    ) -> driver_preflight.Findings:
        """Whether the packages of those hosts let their driver be installed; a call to each, and none where there are none."""
        repositories = data_tables.read("nvidia_repositories")
        requests = {
            host: driver_preflight.request(cluster.wanted[host], driver, state, repositories)
            for host, driver in due.items()
            # Nothing is installed where the platform brings its driver.
            if (state := observed[host].state) and cluster.wanted[host].settings.get("nvidia_driver_source") != "verify"
        }
        return driver_preflight.find(
            requests,
            lambda some: self.ask_each("driver.preflight", "check", some, task_vars),
            driver_preflight.lock_deadline({host: cluster.wanted[host] for host in due}),
        )

    def _arguments(self, asked: Mode | None, found: variables.Found) -> tuple[Mode, Policy, list[Stop]]:
        """The mode and the policy; and what is wrong with the policy beside what was ``found`` of its variables."""
        if any(name.startswith("rollout_") for name in found.names):
            return asked or Mode.CONVERGE, Policy(), []
        _validated, arguments = self.validate_argument_spec(argument_spec=SPEC)
        mode = asked or Mode(arguments["mode"])
        try:
            return mode, Policy.parse(**arguments["policy"]), []
        except ValueError as error:
            return mode, Policy(), [Stop(line) for line in str(error).splitlines()]

    def _misplaced(self, task_vars: Values, declared: Mapping[str, Declared], found: variables.Found) -> list[Stop]:
        """What else is wrong with the inventory, where that does not come of what was found already."""
        if not found.names.isdisjoint(topology.VARIABLES):
            return []
        return [Stop(problem) for problem in self.topology(task_vars, declared).problems]


def _mode(arguments: Mapping[str, Any], extra: Mapping[str, Any]) -> tuple[Mode | None, Stop | None]:
    """What a roll is asked for by ``action``, None where none is given; and why it cannot be done."""
    action = arguments.get("action")
    if action is None:
        if "rollout_action" not in extra:
            return None, None
        cause = "rollout_action is for playbooks/upgrade_driver.yml alone; nothing was changed"
        return None, Stop(cause, f"{_ROLL} -e rollout_action={extra['rollout_action']}")
    try:
        mode = plan.mode_of(action)
    except StopError as error:
        return None, error.stop
    declared = sorted({*needs.DRIVER} & {*extra})
    if mode is Mode.ABORT and declared:
        cause = f"-e {declared[0]}=… says where to go, and aborting goes back to what each host ran before the roll"
        return mode, Stop(cause, f"{_ROLL} -e rollout_action=abort")
    return mode, None


def for_this_run_alone(extra: Collection[str], mode: Mode) -> list[str]:
    """What ``-e`` sets of all that decides what roles leave on a host, which the next run would not know."""
    roles = (*settings.HOST_ROLES, *settings.ROUTER_ROLES)
    deciding = {name for role in roles for name in manifests.deciding(settings.argument_specs(role))}
    given = sorted(deciding & {*extra}) if mode not in request.REPAIRS else []
    if not given:
        return []
    rest = "for this run alone: unless the inventory says the same, write it there, or the next site.yml takes it back"
    return [f"-e sets {' and '.join(given)} {rest}"]


def result(
    cluster: Cluster,
    observed: Mapping[str, Observed],
    run: plan.Run,
    fingerprints: Mapping[str, Any],
    warnings: Sequence[str] = (),
    examine: Examine = lambda _due: driver_preflight.Findings(),
    addresses: Mapping[str, str] | None = None,
    unwanted: Sequence[Unexpected] = (),
    router_findings: Sequence[findings.Finding] = (),
) -> dict[str, Any]:
    """What the action returns: the plan, or its refusals.

    Args:
        cluster, observed, run: what was read and asked.
        fingerprints: of the hosts that answered.
        warnings: those of the request, before the plan's own.
        examine: asks the hosts whose driver is due.
        addresses: of the routers, by router.
        unwanted: what serves and is not in the inventory: once the routers forget it, nobody knows of it.
        router_findings: what is wrong with the routers' certificates and shared address.
    """
    known = Known(
        issues=data_tables.read("known_issues"),
        branches=data_tables.read("driver_branches"),
        cuda=data_tables.read("cuda_minimum_driver"),
        today=run.now.date(),
    )
    planned = plan.build(cluster.topology, cluster.wanted, observed, run, known)
    found = examine(planned.due_drivers)
    unfit, doubtful = findings.refusals_and_warnings(router_findings)
    serving = (Stop(each.cause, each.next) for each in unwanted if each.serving)
    planned = dataclasses.replace(
        planned, warnings=(*map(Stop, warnings), *found.warnings, *planned.warnings, *doubtful, *serving)
    )
    reasons = [*planned.refusals, *found.refusals, *unfit, *_router_refusals(cluster, observed, run.limit or ())]
    if reasons:
        return refused(reasons, render.lines(planned.warnings))
    due_routers = [] if run.mode in (Mode.ABORT, Mode.VERIFY) else _due_routers(cluster, observed, run.limit or ())
    name = f"{run.now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    hosts = [host for wave in planned.waves for host in wave.hosts]
    reached = endpoints.endpoints(cluster.topology, cluster.wanted, addresses or {})
    shown = run_plan.as_dict(name, run, planned, cluster.topology, observed, due_routers)
    return {
        "changed": False,
        "lockstep_plan": {**shown, "endpoints": reached},
        "fingerprints": {host: fingerprints.get(host) for host in hosts},
    }


def refused(reasons: Sequence[Stop], warnings: Sequence[str] = ()) -> dict[str, Any]:
    """What the action returns of a run that must not begin: all that is wrong, and what the operator should know besides."""
    following = next((reason.next for reason in reasons if reason.next), "")
    message, lines = render.refused(reasons)
    return {
        "failed": True,
        "refused": True,
        "msg": message,
        # Not in the message, which Ansible prints twice; one text, as it folds the lines of a list.
        "reasons": "".join(f"- {line}\n" for line in (*lines, *(f"warning: {warning}" for warning in warnings))),
        **({"next": following} if following else {}),
        "lockstep_plan": {"refused": True, "waves": []},
    }


def _router_refusals(cluster: Cluster, observed: Mapping[str, Observed], limit: Collection[str]) -> list[Stop]:
    stops = []
    for host in cluster.routers:
        answer = observed.get(host) if host in limit else None
        if answer is not None and answer.state is not None:
            stops += [
                Stop(f"port {port} is taken by {owner}: stop it, or set another {name}", where=host)
                for name, taken in own_ports.of_router(cluster.wanted[host].settings).items()
                for port in taken
                if (owner := answer.state.preflight.taken_ports.get(str(port), ROUTER_UNIT)) != ROUTER_UNIT
            ]
        elif answer is not None and answer.unresolved:
            stops.append(refusals.unresolved(host, answer.unresolved))
        elif answer is not None:
            ping = f"ansible {host} -m ansible.builtin.ping"
            stops.append(Stop("the router does not answer", ping, host, answer.error or ""))
    return stops


def _due_routers(cluster: Cluster, observed: Mapping[str, Observed], limit: Collection[str]) -> list[str]:
    return [host for host in cluster.routers if host in limit and needs.router_reason(observed[host].state)]
