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
  - Without a GPU a compiled function stands for the graph, its first call for the capture; C(gate.measured.graphs) shows it.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.gate
  - lockstep.vllm.gate.rank_group
options:
  modes:
    description: vLLM's cudagraph modes. V(PIECEWISE) has graphs around the collectives, V(FULL) has them inside.
    type: list
    elements: str
    choices: [PIECEWISE, FULL]
  batches:
    description: Batch sizes, one graph each. V(1) to V(256) in powers of two on a GPU by default.
    type: list
    elements: int
  replays:
    description: Replays of each graph.
    type: int
  hidden:
    description: Width of the layer.
    type: int
  heads:
    description: Attention heads of the layer.
    type: int
  dtype:
    description: torch's name of the dtype.
    type: str
    choices: [bfloat16, float16, float32]
  compile:
    description: On a GPU, also capture what torch.compile made of the layer.
    type: bool
  compile_backend:
    description: torch.compile's backend. V(auto) takes inductor on a GPU and aot_eager on CPU.
    type: str
    choices: [auto, inductor, aot_eager, eager]
  capture_error_mode:
    description: As torch.cuda.graph takes it.
    type: str
    choices: [global, thread_local, relaxed]
  slowest_replay_ratio:
    description: A replay may take this many times as long as eager. V(0) demands no time.
    type: float
    default: 0
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
    modes: [PIECEWISE, FULL]
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

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import entry_point, runner

WORK = (
    "modes",
    "batches",
    "replays",
    "hidden",
    "heads",
    "dtype",
    "compile",
    "compile_backend",
    "capture_error_mode",
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **entry_point.RANK_GROUP_ARGUMENTS,
            "modes": {"type": "list", "elements": "str", "choices": ["PIECEWISE", "FULL"]},
            "batches": {"type": "list", "elements": "int"},
            "replays": {"type": "int"},
            "hidden": {"type": "int"},
            "heads": {"type": "int"},
            "dtype": {"type": "str", "choices": ["bfloat16", "float16", "float32"]},
            "compile": {"type": "bool"},
            "compile_backend": {"type": "str", "choices": ["auto", "inductor", "aot_eager", "eager"]},
            "capture_error_mode": {"type": "str", "choices": ["global", "thread_local", "relaxed"]},
            "slowest_replay_ratio": {"type": "float", "default": 0},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, gate={})
    own = {"slowest_replay_ratio": params["slowest_replay_ratio"]}
    work = {name: params[name] for name in WORK}
    entry_point.finish(module, "graph", lambda: runner.run(entry_point.request("graph", params, work, **own)))


if __name__ == "__main__":
    main()
