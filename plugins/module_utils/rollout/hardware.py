"""The GPUs that a replica's layouts want against those that its hosts declare and show, host by host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..core.wording import many
from ..driver.cards import is_card
from ..engine.config import Config
from ..engine.layouts import Layout
from .findings import Finding, refuse, warn
from .needs import DISTURBING, Desired, HostNeed
from .observed import HostState
from .settings import Settings
from .topology import Replica


def declared(settings: Settings) -> int | None:
    """The GPUs that a host declares; None where that is not set, or is no number, which others report."""
    try:
        return int(settings["gpu_host_gpus"])
    except (KeyError, TypeError, ValueError):
        return None


def shown(state: HostState) -> int | None:
    """The GPUs that a host shows: to its loaded driver; without one, its PCI bus, unless that shows none at all."""
    if state.driver.shown is not None:
        return state.driver.shown
    return state.machine.pci_gpus or None if state.driver.loaded_version is None else None


def layout_findings(
    replica: Replica, desired: Mapping[str, Desired], config: Config, states: Mapping[str, HostState]
) -> Iterator[Finding]:
    """Whether the layouts of one replica can be placed on its hosts."""
    gpus = {host: count for host in replica.hosts if (count := declared(desired[host].settings)) is not None}
    if len(gpus) != len(replica.hosts):
        return
    head = replica.head
    if gpus[head] < 1:
        yield refuse(
            f"{head} ({replica.name}): gpu_host_gpus is {gpus[head]} on the head, and vLLM's first rank runs there: give "
            "ray_node_role: head to a host with GPUs"
        )
        return
    larger = [host for host in replica.workers if gpus[host] > gpus[head]]
    if larger:
        yield refuse(
            f"{head} ({replica.name}): the head has {many(gpus[head], 'GPU')}, and {_listed(gpus, larger)}: Ray would put all "
            "other ranks on a worker, and spread one tensor parallel group over hosts. Give ray_node_role: head to "
            f"{larger[0]}"
        )
    sizes = "vllm_server_layouts" if desired[head].settings.get("vllm_server_layouts") else (
        "vllm_server_tensor_parallel_size and vllm_server_pipeline_parallel_size"
    )  # fmt: skip
    problems = {layout.name: _unplaced(layout, gpus, gpus[head], "the inventory declares") for layout in config.layouts}
    for layout in config.layouts:
        if problems[layout.name]:
            yield refuse(
                f"{replica.name}: {layout.name} ({layout.sizes}) {problems[layout.name]}: change {sizes}, or add hosts"
            )
    if any(problems.values()):
        return
    idle = [host for host in replica.workers if all(gpus[host] < layout.on(gpus[head])[1] for layout in config.layouts)]
    if idle:
        yield warn(
            f"{replica.name}: {_listed(gpus, idle)}, fewer GPUs than any layout needs of a host: it serves nothing"
        )
    if not desired[head].settings.get("vllm_server_tensor_parallel_size") and sizes != "vllm_server_layouts" and (
        sum(gpus.values()) > config.layouts[0].gpus
    ):  # fmt: skip
        yield warn(
            f"{replica.name}: vllm_server_tensor_parallel_size is not set, so the engine takes "
            f"{many(config.layouts[0].gpus, 'GPU')} of {sum(gpus.values())}"
        )
    yield from _surveyed(replica, config, gpus, states)


def _surveyed(
    replica: Replica, config: Config, gpus: Mapping[str, int], states: Mapping[str, HostState]
) -> Iterator[Finding]:
    """Layouts that do not fit what the hosts show now; why one shows less is said of the host."""
    there = dict(gpus)
    for host, state in states.items():
        count = shown(state)
        there[host] = gpus[host] if count is None else min(count, gpus[host])
    unfit = [layout for layout in config.layouts if _unplaced(layout, there, gpus[replica.head], "")]
    if unfit:
        fitting = [layout.name for layout in config.layouts if layout not in unfit]
        rest = f"; what fits: {', '.join(fitting)}" if fitting else ", and no other does"
        yield warn(
            f"{replica.name}: {unfit[0].name} ({unfit[0].sizes}) does not fit the GPUs that its hosts show "
            f"({_listed(there, replica.hosts)}){rest}"
        )


def _unplaced(layout: Layout, gpus: Mapping[str, int], of_head: int, who: str) -> str:
    """Why a layout cannot be placed on hosts with these GPUs, counted as the engine counts them; empty where it can."""
    hosts, each = layout.on(of_head)
    if layout.gpus > sum(gpus.values()):
        return f"wants {many(layout.gpus, 'GPU')}, {who} {sum(gpus.values())} ({_listed(gpus, gpus)})"
    short = [host for host in gpus if gpus[host] < each]
    if len(gpus) - len(short) < hosts:
        return f"wants {many(hosts, 'host')} with at least {many(each, 'GPU')} each, and {_listed(gpus, short)}"
    return ""


def _listed(gpus: Mapping[str, int], hosts: Any) -> str:
    return ", ".join(f"{host} has {gpus[host]}" for host in hosts)


def host_findings(
    replica: Replica,
    desired: Mapping[str, Desired],
    states: Mapping[str, HostState],
    needs: Mapping[str, HostNeed],
) -> Iterator[Finding]:
    """Hosts that show other GPUs than they declare, and different cards in one replica.

    The driver gate would fail them, so that a wave for them is in vain; a host that no wave takes goes on as it does. One
    that gets another driver may show other numbers, never other cards.
    """
    unlike = {}
    for host, state in states.items():
        settings, steps = desired[host].settings, set(needs[host].steps)
        gated = bool(DISTURBING & steps)
        count, expected = shown(state), declared(settings)
        by_driver = state.driver.shown is not None
        if count is not None and expected is not None and (count < expected or (by_driver and count != expected)):
            source = "nvidia-smi" if by_driver else "the PCI bus"
            final = gated and not (by_driver and state.driver.loaded_version != settings.get("nvidia_driver_version"))
            yield (refuse if final else warn)(
                f"{host} ({replica.name}): {source} shows {many(count, 'GPU')}, gpu_host_gpus is {expected}: repair the "
                "host, or correct gpu_host_gpus",
                f"ansible {host} --become -m ansible.builtin.command -a 'lspci -d 10de:'",
            )
        word = settings.get("gpu_host_gpu_model")
        others = [name for name in state.driver.gpus if word and not is_card(str(word), name)]
        if others:
            yield (refuse if gated else warn)(
                f"{host} ({replica.name}): {', '.join(others)} found, gpu_host_gpu_model is {word}: correct gpu_host_gpu_model "
                "(whole words of the name), or remove the host from the inventory"
            )
        if not word and state.driver.gpus:
            unlike[host] = state.driver.gpus
    if len(set(unlike.values())) > 1 or any(len(names) > 1 for names in unlike.values()):
        cards = ", ".join(f"{' and '.join(names)} on {host}" for host, names in unlike.items())
        yield warn(
            f"{replica.name} has different cards: {cards}. All ranks run at the pace and with the memory of the smallest; use "
            "alike hosts, or declare the card that you mean with gpu_host_gpu_model"
        )
