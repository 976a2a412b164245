"""Hosts that cannot be what the inventory says: one machine under two names, two interfaces in one network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network

from ..core.grouping import grouped
from .findings import Finding, refuse, warn
from .machine import Network
from .observed import HostState


def one_machine(states: Mapping[str, HostState]) -> Iterator[Finding]:
    """Names under which the same machine answered.

    The same GPU is in one machine only. A boot id is one kernel's: of containers on it the first processes started at
    different times, and their machine ids differ. A machine id alone is what cloned images share.
    """
    named: set[frozenset[str]] = set()
    for what, alike in _alike(states).items():
        pair = frozenset(alike)
        if pair not in named:
            named.add(pair)
            yield refuse(
                f"{' and '.join(alike)} are one machine ({what}): keep one of these names in the inventory; a host may be in a "
                "replica and in group router under one name"
            )
    of_id = grouped((state.machine.id, host) for host, state in states.items() if state.machine.id)
    for machine_id, hosts in of_id.items():
        if len(hosts) > 1 and not any(pair <= set(hosts) for pair in named):
            yield warn(
                f"{', '.join(hosts)} have the same /etc/machine-id ({machine_id}), as clones of one image do: DHCP and logs "
                "take them for one machine; on all but one: rm /etc/machine-id; systemd-machine-id-setup; reboot"
            )


def _alike(states: Mapping[str, HostState]) -> dict[str, list[str]]:
    """What several hosts have in common and only one machine can have, with these hosts."""
    owners = grouped((f"both show {uuid}", host) for host, state in states.items() for uuid in state.driver.uuids)
    found = {what: list(dict.fromkeys(hosts)) for what, hosts in owners.items()}
    booted = grouped((state.machine.boot, host) for host, state in states.items() if state.machine.boot)
    for (boot, _first), hosts in booted.items():
        for machine_id, same in grouped((states[host].machine.id, host) for host in hosts).items():
            if _have_cards_of_their_own([states[host] for host in same]):
                continue
            found[f"the same boot id {boot}, machine id {machine_id}"] = same
    return {what: hosts for what, hosts in found.items() if len(hosts) > 1}


def _have_cards_of_their_own(states: Sequence[HostState]) -> bool:
    """Whether all show GPUs and no two the same one: clones of a running virtual machine, or containers, not one machine."""
    uuids = [uuid for state in states for uuid in set(state.driver.uuids)]
    return all(state.driver.uuids for state in states) and len(set(uuids)) == len(uuids)


def networks(host: str, interface: str, state: HostState) -> Iterator[Finding]:
    """Interfaces of one host in one network: the kernel answers by the route of the lowest metric, or by whichever came up
    first; that has to be the interface that Ray and NCCL use.

    Args:
        interface: ``gpu_host_interface``.
    """
    inside: dict[IPv4Network, dict[str, Network]] = {}
    for name, found in (state.networks or {}).items():
        for each in found:
            if name != "lo" and each.network.prefixlen < 32:
                inside.setdefault(each.network, {}).setdefault(name, each)
    for network, found_in in inside.items():
        metrics = {name: each.metric for name, each in found_in.items() if each.metric is not None}
        lowest = [name for name, metric in metrics.items() if metric == min(metrics.values())]
        if len(found_in) < 2 or lowest == [interface] or (interface not in found_in and len(lowest) < 2):
            continue
        listed = [f"{name} ({each.address})" for name, each in found_in.items()]
        remedy = (
            f"metrics of their own, that of {interface} the lowest" if interface in found_in else "metrics of their own"
        )
        yield warn(
            f"{', '.join(listed[:-1])} and {listed[-1]} of {host} are {'both' if len(listed) == 2 else 'all'} in {network}: "
            f"answers leave by whichever route came up first. Give them networks of their own, or {remedy}",
            f"ansible {host} -m ansible.builtin.command -a 'ip -4 route show {network}'",
        )
