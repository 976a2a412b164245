#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: fetch_evidence
short_description: Bring a run's evidence beside its report
description:
  - Brings what gates and the engine saved on the hosts (stacks, logs, kernel messages) to the folder on the controller in
    which P(lockstep.vllm.rollout#callback) keeps the run, so that its report can link it.
  - Of each file the last 256 KiB, of each host at most 4 MiB and 500 files, newest first, counted on the controller. They
    are kept as text (C(.txt)) that only their owner may read.
  - Never a failure. Hosts that don't answer, or answer what cannot be used, are listed; a file that cannot be kept is a
    warning.
  - Runs once for the whole play and asks all hosts at once.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
options:
  run:
    description: The run whose evidence to fetch.
    type: str
    required: true
  hosts:
    description: Hosts to ask.
    type: list
    elements: str
    required: true
  since:
    description: Also bring the engine's log and evidence where they were written after this moment, Unix seconds.
    type: float
    default: 0
attributes:
  check_mode:
    support: full
    description: Does nothing.
  action:
    support: full
    description: Runs on the controller.
"""

EXAMPLES = r"""
- name: Fetch evidence beside the report
  lockstep.vllm.fetch_evidence:
    run: "{{ lockstep_run }}"
    hosts: "{{ lockstep_wave_members }}"
"""

RETURN = r"""
files:
  description: Files written on the controller.
  returned: success
  type: list
  elements: str
  sample: [.cache/lockstep/runs/20261122T003000Z-ab12/evidence/a2/var/lib/lockstep/engine/engine.log.txt]
folder:
  description: The run's folder on the controller, in which the report lies too.
  returned: success
  type: str
  sample: .cache/lockstep/runs/20261122T003000Z-ab12
silent:
  description: Hosts that gave no answer that can be used, with the error.
  returned: success
  type: dict
  sample: {a1: "a1 did not answer"}
"""
