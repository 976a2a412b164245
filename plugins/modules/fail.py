#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: fail
short_description: Fail with a cause and the next command to type
description:
  - Like M(ansible.builtin.fail), but the next command is a field of the result too, which the report of a run shows.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
options:
  cause:
    description: What failed, and where.
    type: str
    required: true
  next:
    description: The next command to type, where there is one; it works when it is pasted.
    type: str
    default: ""
  refused:
    description:
      - Whether this is a refusal to begin, rather than something that went wrong.
      - A run whose only failures are refusals, and that has changed nothing before, ends as refused in its closing box and
        its report.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Fails as well.
  action:
    support: full
    description: Runs on the controller.
"""

EXAMPLES = r"""
- name: Fail unless the wave succeeded
  lockstep.vllm.fail:
    cause: wave 2 of 3 failed
    next: ansible-playbook playbooks/diagnose.yml --limit replica_b
  when: wave_failed
"""

RETURN = r"""
next:
  description: The next command to type; RV(ignore:msg) or RV(reasons) has it as well.
  returned: always
  type: str
refused:
  description: That nothing was begun.
  returned: when O(refused)
  type: bool
  sample: true
reasons:
  description: What follows the first line of O(cause), and the next command.
  returned: when O(cause) has several lines
  type: str
"""
