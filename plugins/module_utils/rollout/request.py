"""What the inventory asks for against what the hosts are and have: all of it, of every host, before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..core.stop import Stop
from ..engine import config as engine_config
from . import (
    engine_request,
    filter_request,
    findings,
    hardware,
    machines,
    model_request,
    own_ports,
    staging_request,
    tunnel_request,
)
from .findings import Finding
from .needs import Desired, HostNeed
from .observed import HostState, Observed
from .states import Mode
from .topology import Replica, Topology

REPAIRS = (Mode.VERIFY, Mode.ABORT)
"""These apply nothing that the inventory says of engines: what is wrong with that is only a warning."""
STAGES = (Mode.CONVERGE, Mode.UPGRADE_MODEL)
"""These bring a model that has a source (playbooks/shared/rollout.yml)."""


def examine(
    topology: Topology,
    asked: Sequence[Replica],
    desired: Mapping[str, Desired],
    observed: Mapping[str, Observed],
    needs: Mapping[str, HostNeed],
    mode: Mode,
) -> tuple[list[Stop], list[Stop]]:
    """Refusals and warnings.

    Args:
        topology: all replicas.
        asked: the replicas that the run may change.
        desired: what the inventory declares; replicas whose head is not in it are passed over.
        observed: of all hosts, also of those that the run does not ask about; those that did not answer are passed over.
        needs: of the hosts that answered.
        mode: what the run is to do.
    """
    states = {host: answer.state for host, answer in observed.items() if answer.state is not None}
    found: list[Finding] = []
    for replica in asked:
        if replica.head in desired:
            mine = {host: states[host] for host in replica.hosts if host in states}
            found += _replica(replica, desired, mine, needs, mode in STAGES)
    members = {host for replica in topology.replicas for host in replica.hosts}
    for host, wanted in desired.items():
        found += own_ports.router_findings(host, wanted.settings) if host not in members else ()
    if mode in REPAIRS:
        found = findings.as_warnings(found)
    return findings.refusals_and_warnings([*machines.one_machine(states), *found])


def _replica(
    replica: Replica,
    desired: Mapping[str, Desired],
    states: Mapping[str, HostState],
    needs: Mapping[str, HostNeed],
    stages: bool,
) -> list[Finding]:
    record = desired[replica.head].engine
    config, problems = engine_config.examine(dict(record)) if record is not None else (None, ())
    found = [*engine_request.findings(replica, desired, problems)]
    if config is not None:
        staging = staging_request.asked_for(desired[replica.head].settings)
        found += model_request.findings(replica, config, states, staging, stages)
        found += hardware.layout_findings(replica, desired, config, states)
    found += engine_request.key_findings(replica, states)
    found += hardware.host_findings(replica, desired, states, needs)
    for host in replica.hosts:
        found += own_ports.findings(host, desired[host].settings, host == replica.head, states.get(host))
        found += filter_request.findings(host, desired[host].settings)
    found += tunnel_request.findings(replica, {host: desired[host].settings for host in replica.hosts}, states)
    for host, state in states.items():
        found += machines.networks(host, str(desired[host].settings.get("gpu_host_interface")), state)
    return found
