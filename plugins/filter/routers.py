"""Filter for the role of the routers: one router among those that share an address."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import shared_address
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import routers


def router_peers(hostvars: Any, groups: Mapping[str, Sequence[str]], host: str) -> dict[str, Any]:
    """``address``, ``peers`` and ``priority`` of the router ``host``."""
    declared = {
        router: str(next((hostvars[router][name] for name in routers.VARIABLES if hostvars[router].get(name)), router))
        for router in groups.get(routers.GROUP, ())
    }
    try:
        return dataclasses.asdict(shared_address.peers(declared, host))
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        return {"router_peers": router_peers}
