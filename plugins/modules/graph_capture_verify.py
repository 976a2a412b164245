#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: graph_capture_verify
short_description: The graph gate, whether captured graphs with collectives inside replay and give what eager gives
description:
  - Runs a small tensor-parallel transformer layer eagerly first, so that a later failure is a fault of graphs alone.
    Then captures a graph for each batch size, in vLLM's cudagraph modes, with GEMM, attention and all-reduce inside,
    replays each many times, then all in mixed order, and compares every result with eager.
  - The verdict tells apart a capture that hangs or errs, a replay that hangs or errs, wrong results, eager that is
    already bad, and graphs that are too slow; and it names the host and the rank that hung.
  - O(scope=host) stays on this host. O(scope=replica) runs on the head, across all hosts of the replica, through Ray.
  - The work runs in a child that ends at O(deadline), after its stacks, the NCCL log, the kernel's messages and
    nvidia-smi's state are saved. Always ends, leaves no process, no port and no GPU memory.
  - Without a GPU a function that is called again stands for the graph, its first call for the capture; C(gate.measured.graphs)
    shows it.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.gate
  - lockstep.vllm.gate.rank_group
  - lockstep.vllm.gate.graph
"""

EXAMPLES = r"""
- name: Verify graphs within the host
  lockstep.vllm.graph_capture_verify:
    scope: host
    run: "{{ admission_run }}"

- name: Verify graphs across the replica
  lockstep.vllm.graph_capture_verify:
    scope: replica
    deadline: 300
    capture: [plain, compiled, custom_all_reduce]
    run: "{{ admission_run }}"
"""

RETURN = r"""
gate:
  description: >-
    The gate's result: its C(verdict) (V(pass), V(fail), or V(timeout) when its deadline ended it), the C(host) or
    C(pair) to blame, the C(cause), what to type C(next), and its C(code), one of C(ok), C(could_not_run), C(no_gpus),
    C(memory_held), C(init_hangs), C(init_failed), C(rank_killed), C(host_lost), C(out_of_time), C(host_missing),
    C(gpus_busy), C(not_placed), C(ray_down), C(ray_refused), C(ray_hangs), C(ray_failed), C(eager_bad),
    C(capture_hangs), C(capture_errors), C(replay_hangs), C(replay_errors), C(wrong_results), C(too_slow),
    C(release_hangs) and C(release_errors).
  returned: always
  type: dict
  sample:
    gate: graph
    verdict: timeout
    code: capture_hangs
    seconds: 121.3
    host: a2
    pair: null
    measured: {captures: 4, replays: 400, worst_deviation: 0.0}
    floor: {}
    backend: nccl
    evidence: [/var/lib/lockstep/evidence/by-hand/graph-replica/trial-01/a2/stack.4711.txt]
    cause: eager is good, and with graphs rank 1 on a2 hung in capture (FULL batch 4); the others waited
    next: ansible-playbook playbooks/diagnose.yml --limit a2
    warnings: []
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import entry_point


def main() -> None:
    module = AnsibleModule(
        argument_spec={**entry_point.RANK_GROUP_ARGUMENTS, **entry_point.GRAPH_ARGUMENTS}, supports_check_mode=True
    )
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, gate={})
    entry_point.finish(module, "graph", lambda: entry_point.run_one(module.params, entry_point.graph))


if __name__ == "__main__":
    main()
