#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: runtime_verify
short_description: Compare the serving environment in use with its lock
description:
  - Reads what is installed in C(/opt/lockstep/runtime/current) and fails where it is not what the lock pins.
  - Imports nothing of the environment and changes nothing.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.read_only
  - lockstep.vllm.fleet.runtime_lock
"""

EXAMPLES = r"""
- name: Verify serving environment
  lockstep.vllm.runtime_verify:
    lock: /opt/lockstep/share/serving_runtime.lock
"""

RETURN = r"""
runtime:
  description: Versions of Python, Ray, vLLM, torch, NCCL and CUDA, and the digest of the lock.
  returned: always
  type: dict
peers:
  description: Names of the hosts of the replica, this one included.
  returned: success
  type: list
  elements: str
problems:
  description: What is not as the lock pins it.
  returned: always
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.core import host_record
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.runtime import install as runtime_install
from ansible_collections.lockstep.vllm.plugins.module_utils.runtime import state as runtime_state


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "lock": {"type": "path", "required": True},
            "extra_requirements": {"type": "list", "elements": "str", "default": []},
            "python": {"type": "str", "default": "python3"},
        },
        supports_check_mode=True,
    )
    params = module.params
    lock = Path(params["lock"])
    environment = runtime_install.Environment(lock, tuple(params["extra_requirements"]), params["python"])
    state = runtime_state.state()
    following = ""
    try:
        digest = runtime_install.expected_digest(environment)
        problems = runtime_install.problems(state, lock.read_text(encoding="utf-8"), digest)
    except runtime_install.InstallError as error:
        problems, following = [error.stop.cause], error.stop.next
    if problems:
        module.fail_json(**Stop("; ".join(problems), following).as_result(), problems=problems, runtime=state)
    record = host_record.read()
    module.exit_json(changed=False, problems=[], runtime=state, peers=sorted(record["peers"]) if record else [])


if __name__ == "__main__":
    main()
