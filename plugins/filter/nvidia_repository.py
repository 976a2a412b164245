"""Filter of the role nvidia_driver; the thinking is in module_utils/driver/nvidia_repository.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.core import data_tables
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import nvidia_repository as repositories


def nvidia_repository(declared: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str | None]:
    """The repository and key of a host whose ``ansible_facts`` are ``facts``; what is not known is None."""
    table = data_tables.read("nvidia_repositories")
    return repositories.resolve(declared, table, facts.get("distribution"), facts.get("distribution_version"))


class FilterModule:
    """Filters of the role nvidia_driver."""

    def filters(self) -> dict[str, Any]:
        return {"nvidia_repository": nvidia_repository}
