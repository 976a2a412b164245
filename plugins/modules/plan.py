#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Survey every host at once and plan the run
description:
  - Asks every host of group C(lockstep) and its routers for its state, all at once and in one read-only call each, and
    decides what each needs and in which waves it gets it.
  - Runs once for the whole play. Fails, with every reason, when the run must not begin; nothing has been changed then.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
options:
  mode:
    description: >-
      V(converge) does all that is due; V(upgrade) only what a change of driver needs; V(verify) changes nothing and runs
      every gate again; V(abort) takes every host back to the driver that it ran before the roll that is not over.
    type: str
    choices: [converge, upgrade, verify, abort]
    default: converge
  action:
    description: What a roll was asked for; decides the mode. V(roll) is V(upgrade).
    type: str
    choices: [roll, abort]
  policy:
    description: >-
      How much may be changed at once. Keys are C(canary), C(wave_size), C(capacity_floor), C(window), C(pause_between),
      C(bake_seconds), C(bake_latency_factor), C(bake_error_share), C(bake_requests), C(order), C(include_quarantined)
      and C(leave_serving), as the operator guide explains them.
    type: dict
    default: {}
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
"""

EXAMPLES = r"""
- name: Every host is surveyed and the run is planned
  lockstep.vllm.plan:
    policy:
      wave_size: 25%
  register: lockstep_plan
"""

RETURN = r"""
run:
  description: Name of this run, as it will stand in stamps and quarantines.
  returned: always
  type: str
mode:
  description: What was planned, as O(mode) says it.
  returned: always
  type: str
began:
  description: When the plan was made, in Unix seconds.
  returned: always
  type: float
waves:
  description: Waves in order, each with its number, replicas, hosts, and per host the reasons.
  returned: always
  type: list
  elements: dict
members:
  description: One row for each host that needs anything, with its groups, wave and steps.
  returned: always
  type: list
  elements: dict
routers:
  description: Routers that have to be configured.
  returned: always
  type: list
  elements: str
floor:
  description: How many replicas must keep serving.
  returned: always
  type: int
bake:
  description: >-
    How each wave is watched: C(seconds), C(latency_factor), C(error_share) and C(requests), from the policy or the defaults.
  returned: always
  type: dict
left_alone:
  description: Replicas that are in no wave, with the reason.
  returned: always
  type: dict
refusals:
  description: Why the run must not begin; each names host and cure.
  returned: always
  type: list
  elements: str
fingerprints:
  description: What the hosts of the waves run now, by host.
  returned: always
  type: dict
text:
  description: The plan in words.
  returned: always
  type: str
"""
