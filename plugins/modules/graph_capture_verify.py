#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: graph_capture_verify
short_description: The graph gate, whether captured graphs with collectives inside replay and give what eager gives
description:
  - Runs a small tensor-parallel transformer layer eagerly first, so that a failure later says I(graph) and not I(network).
    Then captures a graph for each batch size, in vLLM's cudagraph modes, with GEMM, attention and all-reduce inside,
    replays each many times, then all in mixed order, and compares every result with eager.
  - The verdict tells apart a capture that hangs or errs, a replay that hangs or errs, wrong results, eager that is
    already bad, and graphs that are too slow; and it names the host and the rank that stood still.
  - O(scope=host) stays on this host. O(scope=replica) runs on the head, across all hosts of the replica, through Ray.
  - The work runs in a child that ends at O(deadline), after its stacks, the NCCL log, the kernel's messages and
    nvidia-smi's state are saved. Always ends, leaves no process, no port and no GPU memory.
  - Without a GPU a compiled function stands for the graph, its first call for the capture; the result says so.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
options:
  scope:
    description: This host alone, or the whole replica (on its head).
    type: str
    choices: [host, replica]
    required: true
  deadline:
    description: Seconds until a verdict. At most five more pass until the module returns.
    type: float
    default: 120
  run:
    description: Names the folder for evidence below C(/var/lib/lockstep/evidence).
    type: str
    default: by-hand
  backend:
    description: V(auto) takes V(nccl) where torch sees a GPU, else V(gloo).
    type: str
    choices: [auto, nccl, gloo]
    default: auto
  hosts:
    description: Hosts of the replica that take part, with O(scope=replica). All by default.
    type: list
    elements: str
  ranks_per_host:
    description: Ranks on each host. As many as GPUs by default.
    type: int
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
    description: A replay may take this many times as long as eager. V(0) judges no time.
    type: float
    default: 0
  localise:
    description: After a failure that names no host, spend up to three rounds of trials to find it.
    type: bool
    default: true
  allow_gpu_processes:
    description: Go on though other processes hold GPU memory.
    type: bool
    default: false
  environment:
    description: Variables for the ranks, such as C(NCCL_IB_HCA), on top of Ray's.
    type: dict
    default: {}
  fail:
    description: Fail the task when the gate does not pass.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
    description: Runs no gate in check mode, since a gate takes the GPUs. Returns an empty RV(gate).
  diff_mode:
    support: none
    description: Changes nothing.
"""

EXAMPLES = r"""
- name: Local graphs pass their gate
  lockstep.vllm.graph_capture_verify:
    scope: host
    run: "{{ admission_run }}"

- name: Graphs across the replica pass their gate
  lockstep.vllm.graph_capture_verify:
    scope: replica
    deadline: 300
    modes: [PIECEWISE, FULL]
    run: "{{ admission_run }}"
"""

RETURN = r"""
gate:
  description: >-
    The gate's result, as every gate gives it (C(gate), C(verdict), C(code), C(host), C(pair), C(seconds), C(measured),
    C(floor), C(backend), C(evidence), C(cause), C(next), C(warnings)). Codes are C(ok), C(eager_bad),
    C(capture_hangs), C(capture_errors), C(replay_hangs), C(replay_errors), C(wrong_results), C(too_slow),
    C(rank_killed), C(host_lost), C(memory_held), C(out_of_time), C(init_hangs), C(init_failed), C(release_hangs),
    C(release_errors), C(no_gpus), C(host_missing), C(gpus_busy), C(not_placed), C(ray_down), C(ray_refused), C(ray_hangs),
    C(ray_failed) and C(could_not_run).
  returned: always
  type: dict
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
            **entry_point.COMMON,
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
    wish = module.params
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, gate={})
    own = {"slowest_replay_ratio": wish["slowest_replay_ratio"]}
    params = {name: wish[name] for name in WORK}
    entry_point.finish(module, "graph", lambda: runner.run(entry_point.request("graph", wish, params, **own)))


if __name__ == "__main__":
    main()
