"""Filter of the role nvidia_driver; the thinking is in module_utils/driver/nvidia_repository.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.core import data_tables
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import nvidia_repository as repositories
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import repository_access as access


def nvidia_repository(declared: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str | None]:
    """The repository and key of a host whose ``ansible_facts`` are ``facts``; what is not known is None."""
    table = data_tables.read("nvidia_repositories")
    return repositories.resolve(declared, table, facts.get("distribution"), facts.get("distribution_version"))


def nvidia_repository_files(declared: Mapping[str, object], repository_url: str | None) -> list[dict[str, str]]:
    """The files by which apt is let into the repository; one without ``content`` is not to be there."""
    return [dataclasses.asdict(file) for file in access.files(access.Access.parse(declared), repository_url or "")]


def nvidia_repository_key_access(
    declared: Mapping[str, object], repository_url: str, keyring_url: str
) -> dict[str, str | bool]:
    """Arguments of ansible.builtin.get_url for the key, where it lies on the repository's own server."""
    given = access.Access.parse(declared).of(keyring_url, repository_url)
    user: dict[str, str | bool] = {
        "url_username": given.username,
        "url_password": given.password,
        "force_basic_auth": True,
    }
    certificate = {"client_cert": f"/{access.CERTIFICATE}", "client_key": f"/{access.KEY}"}
    return {**(user if given.username else {}), **(certificate if given.client_certificate else {})}


class FilterModule:
    """Filters of the role nvidia_driver."""

    def filters(self) -> dict[str, Any]:
        return {
            "nvidia_repository": nvidia_repository,
            "nvidia_repository_files": nvidia_repository_files,
            "nvidia_repository_key_access": nvidia_repository_key_access,
        }
