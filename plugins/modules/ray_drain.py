#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: ray_drain
short_description: Drain a host's Ray node, and wait until nothing runs on it
description:
  - Asks the head to drain this host's node, so that Ray places no new work on it, then waits until nothing holds a GPU of it.
  - The deadline's end is no failure; stop the Ray unit afterwards in any case.
  - A host that has no living node, or a head that does not answer, needs no draining.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.change
options:
  reason:
    description: The reason that Ray records.
    type: str
    default: Lockstep drains this host
  deadline:
    description: Seconds for running work to end.
    type: float
    default: 60
"""

EXAMPLES = r"""
- name: Drain this host in Ray
  lockstep.vllm.ray_drain:
    reason: driver 550.127.05
    deadline: 120
"""

RETURN = r"""
state:
  description: >-
    V(drained); V(busy) when work ran on at the deadline; V(absent) when the host has no living node; V(declined) when Ray
    refused; V(head_away) when nobody answered.
  returned: success
  type: str
reason:
  description: Why, where it was not drained.
  returned: success
  type: str
seconds:
  description: How long it took.
  returned: success
  type: float
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.core import deadline, records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop

_MARGIN = 30.0


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "reason": {"type": "str", "default": "Lockstep drains this host"},
            "deadline": {"type": "float", "default": 60.0},
        },
        supports_check_mode=True,
    )
    python = records.RUNTIME / "bin" / "python"
    if not python.exists():
        module.exit_json(changed=False, state="absent", reason=f"{python} does not exist", seconds=0.0)
    seconds = module.params["deadline"]
    argv = [str(python), "-m", "lockstep.ray.drain", "--deadline", str(seconds), "--reason", module.params["reason"]]
    if module.check_mode:
        argv.append("--check")
    outcome = deadline.run(argv, deadline=seconds + _MARGIN, env={**os.environ, "PYTHONPATH": str(records.LIB)})
    if outcome.status != "done":
        cause = f"Ray did not drain this host: {outcome.stderr.strip() or outcome.status}"
        module.fail_json(**Stop(cause, "journalctl -u lockstep-ray").as_result())
    module.exit_json(**json.loads(outcome.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    main()
