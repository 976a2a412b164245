#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: rank_group_verify
short_description: The NCCL gate and the graph gate with one start of the ranks
description:
  - Runs what M(lockstep.vllm.nccl_verify) and then what M(lockstep.vllm.graph_capture_verify) run, by the same ranks, so that
    torch is loaded and the process group formed once.
  - Each gate has its own verdict, deadline and evidence, as if it had run alone. A failure belongs to the gate whose part had
    begun last. Where the NCCL gate ends the ranks (one is killed, fails or hangs), the graph gate does not run.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.gate
  - lockstep.vllm.gate.rank_group
  - lockstep.vllm.gate.nccl
  - lockstep.vllm.gate.graph
"""

EXAMPLES = r"""
- name: Run NCCL and graph gates within the host
  lockstep.vllm.rank_group_verify:
    scope: host
    run: "{{ admission_run }}"
  register: ranks

- name: Show what each gate found
  ansible.builtin.debug:
    msg: "{{ ranks.results | map(attribute='gate') }}"
"""

RETURN = r"""
results:
  description: An item for each gate that began, with its C(gate) as the gate's own module returns it.
  returned: always
  type: list
  elements: dict
  sample:
    - msg: nccl gate passed in 4.1 s on nccl
      failed: false
      gate: {gate: nccl, verdict: pass, code: ok, seconds: 4.1, backend: nccl}
    - msg: graph gate passed in 3.9 s on nccl
      failed: false
      gate: {gate: graph, verdict: pass, code: ok, seconds: 3.9, backend: nccl}
evidence:
  description: Paths of the evidence of all of them, on the host that ran them.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import entry_point, runner
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.result import GateResult


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **entry_point.RANK_GROUP_ARGUMENTS,
            **entry_point.NCCL_ARGUMENTS,
            **entry_point.GRAPH_ARGUMENTS,
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, results=[])

    def run() -> list[GateResult]:
        return runner.run(entry_point.request(params, entry_point.nccl(params), entry_point.graph(params)))

    entry_point.finish_all(module, ("nccl", "graph"), run)


if __name__ == "__main__":
    main()
