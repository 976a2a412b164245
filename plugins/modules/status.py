#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: status
short_description: Show what every replica and host is doing, and why
description:
  - Probes all hosts at once, read-only, and prints per replica and host the role, driver, stamp, quarantine, Ray state,
    GPUs, engine state, layout, rung, since when, and the last reason.
  - With C(--limit) it shows the replicas, whole ones, that have a host of it, and says so where it names a part.
  - Names what runs or serves and is not wanted by the inventory, with the command that removes it.
  - Hosts that don't answer are shown as such; the task fails only where the inventory itself is wrong.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.read_only
  - lockstep.vllm.fleet.controller
options:
  format:
    description: V(table) for people, V(json) for programs; C(docs/reference/status.md) lists the keys of the latter.
    type: str
    choices: [table, json]
    default: table
  others:
    description: >-
      Ask also the hosts of the inventory that are in no replica and are no routers, whether anything of Lockstep runs there.
      Each is one connection to a machine that may have nothing to do with Lockstep.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show the cluster
  lockstep.vllm.status:
  register: shown

- name: Assert that every replica serves
  ansible.builtin.assert:
    that: shown.status.replicas | selectattr('serving', 'false') | list == []
"""

RETURN = r"""
status:
  description: What was shown, as data, whatever the format.
  returned: always
  type: dict
"""
