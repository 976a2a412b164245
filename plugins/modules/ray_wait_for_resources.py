#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: ray_wait_for_resources
short_description: Wait until a Ray cluster has the required hosts and GPUs
description:
  - Waits for a stated shape of this host's Ray cluster, and names each host that is missing, with the cause that the
    host itself gives.
  - Counts no node that is dead, draining, silent or joined under another address.
  - As long as Ray still counts a silent host it is not ready, though enough others are there. Ray may place ranks on it.
  - Ends before the deadline where waiting cannot help, as when a missing host is in quarantine.
  - In a play it reports on the way who is missing (the action of the same name). It runs on any host of the replica; the
    host waits by the same source, C(python -m lockstep.ray.wait), before the engine starts.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
options:
  members:
    description: >-
      Names of the hosts that may count; all hosts of the replica by default. More of them than O(hosts) means spares.
    type: list
    elements: str
  hosts:
    description: How many hosts must be there; as many as O(members) by default.
    type: int
  gpus_per_host:
    description: GPUs that a host needs in order to count; by default those that the inventory declares for this host.
    type: float
  gpus:
    description: GPUs in all; O(hosts) times O(gpus_per_host) by default.
    type: float
  resources:
    description: Amounts of custom resources, in all.
    type: dict
    default: {}
  labels:
    description: Ray labels that a host needs in order to count.
    type: dict
    default: {}
  free:
    description: Count only GPUs that nobody holds.
    type: bool
    default: false
  stable_for:
    description: Seconds for which all of it must hold without a break.
    type: float
    default: 0
  deadline:
    description: Seconds to wait.
    type: float
    default: 1800
attributes:
  check_mode:
    support: full
    description: Samples once, returns what is missing, and neither waits nor fails.
"""

EXAMPLES = r"""
- name: Wait for the Ray cluster
  lockstep.vllm.ray_wait_for_resources:

- name: Wait for two of three hosts, with eight GPUs each, for half a minute
  lockstep.vllm.ray_wait_for_resources:
    members: [a1, a2, spare1]
    hosts: 2
    gpus_per_host: 8
    stable_for: 30
    deadline: 900
"""

RETURN = r"""
ready:
  description: Whether the shape is there.
  returned: always
  type: bool
code:
  description: V(ready), V(deadline), V(hopeless) when waiting cannot help, or V(impossible) when the inventory has less.
  returned: always
  type: str
reason:
  description: What is short, and who is missing and why; empty when ready.
  returned: always
  type: str
seconds:
  description: How long it waited.
  returned: always
  type: float
nodes:
  description: The Ray nodes that count, with C(host), C(address), C(resources), C(free), C(labels) and more.
  returned: always
  type: list
  elements: dict
missing:
  description: The hosts that do not, with C(host), C(code), C(reason) and whether that is C(final).
  returned: always
  type: list
  elements: dict
"""

import json
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.core import deadline, records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop

_SHAPE = ("members", "hosts", "gpus_per_host", "gpus", "resources", "labels", "free", "stable_for")
_MARGIN = 30.0
"""Seconds by which the waiter's own deadline may be overrun before it is ended."""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "members": {"type": "list", "elements": "str"},
            "hosts": {"type": "int"},
            "gpus_per_host": {"type": "float"},
            "gpus": {"type": "float"},
            "resources": {"type": "dict", "default": {}},
            "labels": {"type": "dict", "default": {}},
            "free": {"type": "bool", "default": False},
            "stable_for": {"type": "float", "default": 0.0},
            "deadline": {"type": "float", "default": 1800.0},
        },
        supports_check_mode=True,
    )
    shape = {name: module.params[name] for name in _SHAPE if module.params[name] is not None}
    seconds = 0.0 if module.check_mode else module.params["deadline"]
    python = records.RUNTIME / "bin" / "python"
    if not python.exists():
        _end(module, {"ready": False, "code": "absent", "reason": f"{python} does not exist: site.yml installs it"})
    argv = [str(python), "-m", "lockstep.ray.wait", "--json", "--deadline", str(seconds), "--shape", json.dumps(shape)]
    environment = {**os.environ, "PYTHONPATH": str(records.LIB)}
    outcome = deadline.run(argv, deadline=seconds + _MARGIN, env=environment)
    if outcome.returncode not in (0, 1) or not outcome.stdout.strip():
        shown = outcome.stderr.strip() or outcome.status
        _end(module, {"ready": False, "code": "broken", "reason": f"the waiter ended without a result: {shown}"})
    _end(module, json.loads(outcome.stdout.strip().splitlines()[-1]))


def _end(module: AnsibleModule, result: dict[str, Any]) -> None:
    result = {"seconds": 0.0, "nodes": [], "missing": [], **result}
    if result["ready"] or module.check_mode:
        module.exit_json(changed=False, **result)
    cause = f"Ray's resources are not there after {result['seconds']:.0f} s: {result['reason']}"
    module.fail_json(**Stop(cause, "ansible-playbook playbooks/status.yml").as_result(), **result)


if __name__ == "__main__":
    main()
