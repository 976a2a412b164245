#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Probe every host at once and plan the run
description:
  - Reads the state of every host of group C(lockstep) and of the routers, all at once and in one read-only call each, and
    decides what each needs and in which waves it gets it.
  - First, without asking a host, checks every variable of the hosts of the run, and of the playbooks, against its spec, and
    every name against those known. Where something is wrong with them, fails with all of it and asks nobody.
  - Fails, with every reason, when the run must not begin; nothing has been changed then.
  - The playbooks of this collection take the variables that are named here, in the inventory or with C(-e).
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.read_only
  - lockstep.vllm.fleet.controller
options:
  mode:
    description: >-
      V(converge) does all that is due; V(upgrade) only what a driver change needs, V(upgrade_runtime) what a change of the
      serving environment needs, V(upgrade_model) what another model or other arguments need; V(verify) changes nothing and runs
      every gate again; V(abort) takes every host back to the driver that it ran before the rollout in progress.
      Playbooks pass it as C(lockstep_mode).
    type: str
    choices: [converge, upgrade, upgrade_runtime, upgrade_model, verify, abort]
    default: converge
  action:
    description: >-
      What a roll was asked for, V(roll) (which is O(mode=upgrade)) or V(abort); decides the mode.
      Variable C(rollout_action) of C(upgrade_driver.yml), which passes it as C(lockstep_action).
    type: str
  policy:
    description: How much may be changed at once, when, and in which order. An empty string is no value.
    type: dict
    suboptions:
      canary:
        description: Replicas in the first wave. Variable C(rollout_canary).
        type: int
        default: 1
      wave_size:
        description: >-
          Replicas in each later wave, a number or a percentage of all replicas (rounded down, at least 1).
          Variable C(rollout_wave_size).
        type: str
        default: 25%
      capacity_floor:
        description: >-
          Replicas that must keep serving throughout, a number or a percentage of all replicas (rounded up). Left out, 1
          where there are two replicas or more, and 0 for a single one. Variable C(rollout_capacity_floor).
        type: str
      window:
        description: >-
          Maintenance window, C(HH:MM-HH:MM) in UTC; may cross midnight. Outside of it no replica that serves is drained.
          Left out, always. Variable C(rollout_window).
        type: str
      pause_between:
        description: Seconds between two waves, with the lock held. Variable C(rollout_pause_between).
        type: float
        default: 0
      bake_seconds:
        description: Seconds for which each changed replica is watched before the next wave. Variable C(rollout_bake_seconds).
        type: float
        default: 0
      bake_latency_factor:
        description: How many times longer tokens may take than before. Variable C(rollout_bake_latency_factor).
        type: float
        default: 2.0
      bake_error_share:
        description: >-
          By how much the share of requests that end badly may grow, 0 to 1. Variable C(rollout_bake_error_share).
        type: float
        default: 0.02
      bake_requests:
        description: >-
          How many requests it takes to compare; with fewer, the bake sends its own. Variable C(rollout_bake_requests).
        type: int
        default: 20
      order:
        description: Replicas to take first, in this order. Variable C(rollout_order).
        type: list
        elements: str
        default: []
      include_quarantined:
        description: >-
          Take replicas with quarantined hosts too; whose gates pass leaves quarantine, an operator's as well. Variable
          C(rollout_include_quarantined).
        type: bool
        default: false
      leave_serving:
        description: Take only replicas that do not serve. Variable C(rollout_leave_serving).
        type: bool
        default: false
notes:
  - >-
    Variables of the rollout lock, for every playbook that changes the cluster. C(rollout_lock_take_over) (string) names the
    run whose lock may be taken over because its controller is gone for good. C(rollout_lock_without) (list) names heads whose
    lock is left out because they cannot be reached.
  - >-
    Variables of C(diagnose.yml). C(diagnose_disturb) (boolean, false) lets the GPU gates stop an engine that runs.
    C(diagnose_deadline) (seconds, 120) is the deadline of each part of a GPU gate. C(diagnose_capture) (list) is what the
    graph gate captures, by default all that M(lockstep.vllm.graph_capture_verify) knows.
  - >-
    Variables of C(verify.yml). C(verify_disturb) (boolean, false) takes replica by replica from service for the gates
    across hosts, in waves as a roll does, and enables each again.
  - >-
    For every playbook, by C(-e) alone. C(rollout_task_deadline) (seconds, 3600; 86400 where a role has deadlines of its own, in
    the waves, for drivers' packages, for models and in C(remove.yml)) is how long any task on any one host may last.
  - Variables of C(status.yml). C(status_format) (V(table) or V(json), V(table)) and C(status_others) (V(false)) as in
    M(lockstep.vllm.status).
seealso:
  - module: lockstep.vllm.rollout_lock
  - module: lockstep.vllm.rollout_request
  - module: lockstep.vllm.status
"""

EXAMPLES = r"""
- name: Plan the run
  lockstep.vllm.plan:
    policy:
      wave_size: 25%
  register: lockstep_planned
"""

RETURN = r"""
reasons:
  description: >-
    Why the run must not begin, one line per reason, with the hosts that it is true of and what to do; then the warnings,
    each begun with C(warning:).
  returned: when the run is refused
  type: str
  sample: "- a1, a2: /opt has 12 MiB free, the runtime step needs 4096: make room\n"
lockstep_plan:
  description: The plan. A refused run has RV(lockstep_plan.refused) and no waves.
  returned: always
  type: dict
  contains:
    run:
      description: Name of this run, as it will stand in stamps and quarantines.
      type: str
      sample: 20261122T003000Z-ab12
    mode:
      description: What was planned, as O(mode) says it.
      type: str
      sample: upgrade
    up_to_date:
      description: The replicas that need nothing.
      type: list
      elements: str
    answering:
      description: The replicas that answered requests when the plan was made.
      type: list
      elements: str
    endpoints:
      description: >-
        Where clients reach the cluster: the routers, then every replica. Each has its C(name), whether it is a C(router), the
        C(url) with C(/v1), the C(model) to ask for, whether a C(key) is needed, C(prompt) and C(max_tokens) of its
        proof, and, of a router with TLS, C(ca), the file by which its certificate is checked.
      type: list
      elements: dict
    began:
      description: When the plan was made, in Unix seconds.
      type: float
    waves:
      description: Waves in order, each with its number, replicas, hosts, and per host the reasons.
      type: list
      elements: dict
      sample:
        - n: 1
          replicas: [replica_a]
          hosts: [a1, a2]
          members: {replica_a: [a1, a2]}
          reasons: {a1: ["driver: package 550.90.07, desired 550.127.05"]}
          zone: null
          canary: true
          serving: [replica_b]
          drained: [replica_a]
    steps:
      description: Per host that needs anything, its steps, each with the reason.
      type: dict
    prepare:
      description: Hosts that are prepared before the first wave.
      type: list
      elements: str
    disturbed:
      description: Replicas that leave service in their wave.
      type: list
      elements: str
    gated:
      description: Replicas whose gates across hosts are due.
      type: list
      elements: str
    skipped:
      description: Replicas that are in no wave, with the reason.
      type: dict
      sample: {replica_c: up to date, replica_d: "quarantined (d1: gates: in quarantine: Xid 79)"}
    left_out:
      description: >-
        The C(replicas) that do not get what was asked for, as they are in quarantine or left out by policy, with the C(cause)
        and C(next) of the failure that the run ends with. Empty where all do.
      type: dict
    refused:
      description: Whether the run must not begin.
      type: bool
    warnings:
      description: What the operator should know all the same, such as suspect version combinations.
      type: list
      elements: str
    members:
      description: >-
        One row for each host that needs anything, with its groups, wave and steps; and one for the controller in each wave
        (C(lockstep_wave_1)), which gives the verdict where no host of the wave can be reached.
      type: list
      elements: dict
    routers:
      description: Routers that have to be configured.
      type: list
      elements: str
    floor:
      description: How many replicas must keep serving.
      type: int
    window:
      description: The maintenance window, as O(policy.window) says it; empty where there is none.
      type: str
    pause_between:
      description: Seconds between two waves.
      type: float
    bake:
      description: How each wave is watched, C(seconds), C(latency_factor), C(error_share) and C(requests).
      type: dict
    text:
      description: The plan for people.
      type: str
fingerprints:
  description: What the hosts of the waves run now, by host.
  returned: when the run is not refused
  type: dict
"""
