# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: ray_token
short_description: The token of one replica's Ray cluster, derived from the one that the inventory keeps
description:
  - Returns HMAC-SHA256 of the replica's name under the secret that is given. Only that reaches the replica's hosts, so that who
    takes one host has the token of its own replica and of no other; the secret stays on the controller.
  - The replica is the child of the group C(lockstep) that the host is in; without that group, the host's C(gpu_host_head), or
    the host by itself.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
options:
  _terms:
    description: The secret.
    required: true
"""

EXAMPLES = r"""
- name: Write Ray token
  ansible.builtin.copy:
    content: "{{ lookup('lockstep.vllm.ray_token', ray_node_token) }}\n"
    dest: /etc/lockstep/ray-token
    owner: root
    group: root
    mode: "0400"
  no_log: true
"""

RETURN = r"""
_raw:
  description: The token, 64 hexadecimal digits.
  type: list
  elements: str
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from ansible.plugins.lookup import LookupBase

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import topology
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals


class LookupModule(LookupBase):
    """One token per replica."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        replica = _replica(variables or {})
        return [derived(str(secret), replica) for secret in terms]


def derived(secret: str, replica: str) -> str:
    """The token of ``replica``: 64 hexadecimal digits that say nothing of ``secret`` or of another replica's."""
    return hmac.new(secret.encode(), f"lockstep ray token of {replica}".encode(), hashlib.sha256).hexdigest()


def _replica(variables: Mapping[str, Any]) -> str:
    host, groups = variables["inventory_hostname"], variables["groups"]
    children = ansible_internals.child_groups(variables["hostvars"], topology.ROOT)
    return next((name for name in children if host in groups[name]), str(variables.get("gpu_host_head") or host))
