"""Hosts that cannot be what the inventory says: one machine under two names, two interfaces in one network."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from .findings import Finding, refuse, warn
from .observed import HostState


def one_machine(states: Mapping[str, HostState]) -> Iterator[Finding]:
    """Names under which the same machine answered.

    The same GPU is in one machine only. A boot id is one kernel's: of containers on it the first processes started at
    different times, and their machine ids differ. A machine id alone is what cloned images share.
    """
    told: set[frozenset[str]] = set()
    for what, alike in _alike(states).items():
        pair = frozenset(alike)
        if pair not in told:
            told.add(pair)
            yield refuse(
                f"{' and '.join(alike)} are one machine ({what}): keep one of these names in the inventory; a host may be in a "
                "replica and in group router under one name"
            )
    of_id: dict[str, list[str]] = {}
    for host, state in states.items():
        if state.machine.id:
            of_id.setdefault(state.machine.id, []).append(host)
    for machine_id, hosts in of_id.items():
        if len(hosts) > 1 and not any(pair <= set(hosts) for pair in told):
            yield warn(
                f"{', '.join(hosts)} have the same /etc/machine-id ({machine_id}), as clones of one image do: DHCP and logs "
                "take them for one machine; on all but one: rm /etc/machine-id; systemd-machine-id-setup; reboot"
            )


def _alike(states: Mapping[str, HostState]) -> dict[str, list[str]]:
    """What several hosts have in common and only one machine can have, with these hosts."""
    owners: dict[str, list[str]] = {}
    for host, state in states.items():
        for uuid in state.driver.uuids:
            owners.setdefault(f"both show {uuid}", []).append(host)
    found = {what: list(dict.fromkeys(hosts)) for what, hosts in owners.items()}
    booted: dict[tuple[str, str], list[str]] = {}
    for host, state in states.items():
        if state.machine.boot:
            booted.setdefault(state.machine.boot, []).append(host)
    for (boot, _first), hosts in booted.items():
        by_id: dict[str | None, list[str]] = {}
        for host in hosts:
            by_id.setdefault(states[host].machine.id, []).append(host)
        for machine_id, same in by_id.items():
            found[f"the same boot id {boot}, machine id {machine_id}"] = same
    return {what: hosts for what, hosts in found.items() if len(hosts) > 1}


def networks(host: str, interface: str, state: HostState) -> Iterator[Finding]:
    """Another interface in the network of the one that Ray and NCCL use: the kernel answers by either.

    Where that has the route of the lowest metric, all traffic leaves by it.
    """
    pairs = itertools.product(state.networks.get(interface, ()), sorted(state.networks.items()))
    for mine, (other, theirs) in pairs:
        if other in (interface, "lo"):
            continue
        for each in theirs:
            if each.network != mine.network or each.network.prefixlen == 32:
                continue
            if mine.metric is not None and (each.metric is None or mine.metric < each.metric):
                continue
            yield warn(
                f"{other} ({each.address}) and {interface} ({mine.address}) of {host} are both in {mine.network}: answers "
                "leave by whichever route came up first. Give them networks of their own, or metrics of their own, that of "
                f"{interface} the lower",
                f"ansible {host} -m ansible.builtin.command -a 'ip -4 route show {mine.network}'",
            )
