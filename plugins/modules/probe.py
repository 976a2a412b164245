#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: probe
short_description: Read the state of every host at once
description:
  - Asks every host of group C(lockstep) and its routers for its state, all at once and in one read-only call each.
  - Runs once for the whole play. A host that does not answer is part of the result and no failure.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
options:
  ray:
    description: Ask the heads for the nodes of their Ray cluster too.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Reads only.
  diff_mode:
    support: none
    description: Changes nothing.
  action:
    support: full
    description: Runs on the controller.
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
    Per host, whether it is C(reachable), the C(error) if it did not answer, and its C(state) as
    M(lockstep.vllm.host_probe) returns it, without the driver's C(holders) and C(xids), which no plan needs.
  returned: always
  type: dict
"""
