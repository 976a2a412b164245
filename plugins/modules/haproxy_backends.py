#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_backends
short_description: Name the replicas of the inventory and where their heads answer
description:
  - Runs on the controller and asks no host. It is an action; this file documents it.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.read_only
"""

EXAMPLES = r"""
- name: Read replicas of the inventory
  lockstep.vllm.haproxy_backends:
  register: haproxy_backends
"""

RETURN = r"""
backends:
  description: One entry for each replica, in inventory order.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the replica.
      type: str
    address:
      description: Address of its head.
      type: str
    port:
      description: Where its vLLM listens.
      type: int
    ready_port:
      description: Where its supervisor answers C(GET /ready).
      type: int
"""
