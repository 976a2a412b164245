#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_completion
short_description: Prove that the engine of this host generates, by having it complete a prompt
description:
  - Asks for a greedy completion and holds model and text against what is expected. Address, model, prompt, answer, key, length
    and deadline are those that the host is configured with (C(/etc/lockstep/engine.json)).
  - Always ends by its deadline, also when the server accepts the connection and then stays silent.
  - Asks neither C(/health) nor C(/v1/models), which answer 200 while generation is dead.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.read_only
"""

EXAMPLES = r"""
- name: Prove the engine that this host is configured to run
  lockstep.vllm.vllm_completion:
"""

RETURN = r"""
completion:
  description: What came of the request.
  returned: always
  type: dict
  contains:
    ok:
      description: Whether the expected model generated the expected text.
      type: bool
    failure:
      description: >-
        One of V(refused), V(timeout), V(unauthorized), V(rejected), V(broken), V(wrong_model), V(empty),
        V(wrong_text); null when ok.
      type: str
    cause:
      description: The failure, for people.
      type: str
    seconds:
      description: Wall time of the request.
      type: float
    model:
      description: The model that answered.
      type: str
    text:
      description: What it generated.
      type: str
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import configured


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    try:
        answer = configured.target().prove()
    except records.RecordError as error:
        module.fail_json(**error.stop.as_result())
    except ValueError as error:
        module.fail_json(msg=str(error))
    record = dataclasses.asdict(answer)
    del record["tokens"]
    if not answer.ok:
        stop = Stop(f"no proof of a completion: {answer.cause}", "journalctl -u lockstep-vllm")
        module.fail_json(**stop.as_result(), completion=record)
    module.exit_json(changed=False, completion=record)


if __name__ == "__main__":
    main()
