#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: probe
short_description: Read the state of every host at once
description:
  - Reads the state of every host of group C(lockstep) and of the routers, all at once and in one read-only call each.
  - A host that does not answer is part of the result, not a failure.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.read_only
  - lockstep.vllm.fleet.controller
options:
  ray:
    description: Ask the heads for the nodes of their Ray cluster too.
    type: bool
    default: false
seealso:
  - module: lockstep.vllm.host_probe
"""

EXAMPLES = r"""
- name: Probe every host
  lockstep.vllm.probe:
    ray: true
  register: probe
"""

RETURN = r"""
replicas:
  description: Per replica, its head, hosts and zone.
  returned: always
  type: dict
routers:
  description: Hosts of group C(router).
  returned: always
  type: list
  elements: str
hosts:
  description: >-
    Per host, whether it is C(reachable), the C(error) and its C(code) (C(unreachable), C(no_answer) within 120 seconds,
    C(too_large), C(failed), C(bad_answer)) if it gave no answer that can be used, and its C(state) as
    M(lockstep.vllm.host_probe) returns it, without the driver's C(holders) and C(xids), which no plan needs. A part of the
    state that is not what it should be is C(error) alone.
  returned: always
  type: dict
"""
