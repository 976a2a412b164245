"""What a command line asks for that cannot be meant, before anything else of a run. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import topology
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import known_variables


def refusal(left_out: Sequence[str], extra: Iterable[str], groups: Container[str]) -> Stop | None:
    """Why a run must not begin.

    Args:
        groups: the names of the inventory's groups.
        left_out: the options that leave tasks out, where the playbook may not be cut.
        extra: the names that ``-e`` sets.
    """
    if topology.ROOT not in groups:
        return Stop(
            f"the inventory has no group '{topology.ROOT}', so there is nothing to do: name yours with -i "
            "(inventories/examples has some to start from)"
        )
    if left_out:
        options = " and ".join(left_out)
        return Stop(
            f"{options} would leave out tasks that the run needs, and nothing was done: type the command without {options}. "
            "For a part of the cluster there is --limit with the name of a replica"
        )
    slips = [str(slip) for slip in known_variables.unknown_among(extra) if slip.slip]
    return Stop(f"-e: {' '.join(slips)} Nothing was done") if slips else None
