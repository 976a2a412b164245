# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: operator
short_description: Who runs Ansible, as user@controller
description:
  - The account is that of the process, not of the environment, which is empty under cron or in a container. Where root
    works for somebody by way of sudo, that somebody is named.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
options:
  _terms:
    description: Takes none.
"""

EXAMPLES = r"""
- name: Quarantine host while its memory is exchanged
  lockstep.vllm.quarantine:
    reason: DIMM 3
    owner: "{{ lookup('lockstep.vllm.operator') }}"
"""

RETURN = r"""
_raw:
  description: One name.
  type: list
  elements: str
"""

from typing import Any

from ansible.plugins.lookup import LookupBase

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import identity


class LookupModule(LookupBase):
    """The name that locks, requests and quarantines bear."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        return [identity.operator()]
