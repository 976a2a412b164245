#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_lock
short_description: Hold, release or read the rollout lock
description:
  - Holds, renews, releases or reads the lock that a roll keeps on the head of every replica, whatever C(--limit) says.
    All heads or none, the first by name before the others, so that of two controllers that come at once one is refused.
  - A held lock is renewed by asking for it again with the same run; that is the holder's heartbeat.
  - A lock left behind by a dead process of the same controller is taken over without being asked, and so is one of a run
    that has released it on another head, as it could not reach this one. Any other holder has to be named in O(take_over).
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.controller
options:
  state:
    description: V(held) takes or renews the lock, V(released) gives it up if O(run) holds it, V(read) changes nothing.
    type: str
    choices: [held, released, read]
    default: held
  run:
    description: The run that holds the lock. Required unless O(state=read).
    type: str
  take_over:
    description: A run whose lock may be taken because its controller is gone for good.
    type: str
  seconds:
    description: >-
      With O(state=held), hold it for so many seconds before returning, with a heartbeat every 20 seconds. Ends at once
      when people ask something of the roll, and fails when another run has taken the lock over meanwhile.
    type: float
    default: 0
  without:
    description: Heads that are left out by name because they cannot be reached.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Writes nothing, and fails where the lock would be refused.
  diff_mode:
    support: none
    description: The locks are in the result.
"""

EXAMPLES = r"""
- name: Acquire rollout lock
  lockstep.vllm.rollout_lock:
    run: "{{ lockstep_run }}"
    take_over: "{{ rollout_lock_take_over | default(omit) }}"
    without: "{{ rollout_lock_without | default([]) }}"
  register: lockstep_lock

- name: Release rollout lock
  lockstep.vllm.rollout_lock:
    state: released
    run: "{{ lockstep_run }}"
"""

RETURN = r"""
lock:
  description: One of the locks as they stand now; null where there is none.
  returned: always
  type: dict
  sample:
    {run: 20261122T003000Z-ab12, holder: ada@ops1, pid: 4711, since: "2026-11-22T00:30:00Z", heartbeat: "2026-11-22T00:31:12Z"}
locks:
  description: The lock of each head that has one.
  returned: always
  type: dict
request:
  description: What is requested of the rollout (see M(lockstep.vllm.rollout_request)); null where there is no request.
  returned: always
  type: dict
  sample: {action: pause, by: ada@ops1, at: "2026-11-22T00:30:00Z", reason: traffic peak}
unready:
  description: >-
    Per head that was asked for its lock, why its replica answers no requests at this moment; empty where it does.
  returned: always
  type: dict
silent:
  description: Heads that did not answer, with the error.
  returned: always
  type: dict
refused:
  description: That nothing was begun, as by M(lockstep.vllm.fail).
  returned: on failure
  type: bool
"""
