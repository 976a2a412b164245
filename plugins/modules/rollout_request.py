#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_request
short_description: Request a rollout to pause, abort or resume
description:
  - Leaves a request on the head of every replica. A roll reads it between two waves, whichever controller it runs on; one
    that is started later reads it before its first wave.
  - V(pause) ends the roll after the wave under way; V(resume) takes that back. V(abort) ends it likewise, for good; what
    it has changed is then rolled back by C(playbooks/upgrade_driver.yml -e rollout_action=abort), in waves and with all gates.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.record
  - lockstep.vllm.fleet.controller
options:
  action:
    description: What is asked.
    type: str
    choices: [pause, abort, resume]
    required: true
  reason:
    description: Why; shown by whatever the request stops.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Pause rollout after the current wave
  lockstep.vllm.rollout_request:
    action: pause
    reason: traffic peak
"""

RETURN = r"""
request:
  description: The request as it stands now (or would, in check mode); null after V(resume).
  returned: always
  type: dict
silent:
  description: Heads that could not be reached, with the error.
  returned: when something was due
  type: dict
"""
