"""Filter of the role serving_runtime; the thinking is in module_utils/runtime/state.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.runtime import state as runtime_state

_REGISTERED = "__serving_runtime_verified"


def runtime_differences(hostvars: Mapping[str, Any], hosts: Sequence[str]) -> list[str]:
    """How the serving environments of ``hosts`` differ, of those that were verified in this run."""
    verified = {
        host: hostvars[host][_REGISTERED] for host in hosts if host in hostvars and _REGISTERED in hostvars[host]
    }
    return runtime_state.differences(
        {host: result["runtime"] for host, result in verified.items() if "runtime" in result}
    )


class FilterModule:
    """Filters of the role serving_runtime."""

    def filters(self) -> dict[str, Any]:
        return {"runtime_differences": runtime_differences}
