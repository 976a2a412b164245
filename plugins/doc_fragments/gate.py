# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the modules of the gates have in common."""

from __future__ import annotations


class ModuleDocFragment:
    """``lockstep.vllm.gate``: every gate; ``.rank_group`` of it: the NCCL and the graph gate; ``.nccl``, ``.graph``: each."""

    DOCUMENTATION = r"""
options:
  run:
    description: Names the folder for evidence below C(/var/lib/lockstep/evidence).
    type: str
    default: by-hand
  fail:
    description: Fail the task when the gate does not pass.
    type: bool
    default: true
attributes:
  diff_mode:
    support: none
    description: Changes nothing.
"""

    RANK_GROUP = r"""
options:
  scope:
    description: This host alone, or the whole replica (on its head).
    type: str
    choices: [host, replica]
    required: true
  deadline:
    description: >-
      Seconds that each part of the work may take, the start of the ranks included in the first. At most five more than all
      parts together pass until the module returns.
    type: float
    default: 120
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
  bisect:
    description: After a failure that names no host, spend up to three rounds of trials to find it.
    type: bool
    default: true
  allow_gpu_processes:
    description: Go on though existing processes hold GPU memory.
    type: bool
    default: false
  environment:
    description: Variables for the ranks, such as C(NCCL_IB_HCA), on top of Ray's.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Runs no gate in check mode, since a gate takes the GPUs. Returns no verdict.
"""

    NCCL = r"""
options:
  dtypes:
    description: Names of torch's dtypes.
    type: list
    elements: str
  sizes:
    description: Message sizes in bytes for the checks.
    type: list
    elements: int
  operations:
    description: Collectives to check.
    type: list
    elements: str
    choices: [all_reduce, all_gather, reduce_scatter, broadcast]
  busbw_bytes:
    description: Message size in bytes for the bandwidth. V(0) measures none.
    type: int
  iterations:
    description: Timed calls of each collective.
    type: int
  floor_gbps:
    description: >-
      Lowest bus bandwidth of all-reduce in 10^9 bytes a second. By default the row of C(data/busbw_floors.yml) that fits,
      else half of the line rate that the links of the hosts state; below three fifths of it the gate warns. Where they
      state none the gate fails, saying so. V(0) demands nothing.
    type: float
  link:
    description: What the traffic crosses, for choosing the floor.
    type: str
    choices: [auto, nvlink, pcie, ib, roce, efa, tcpx, tcpxo, ethernet, cpu]
    default: auto
  nccl_tests:
    description: >-
      Take nccl-tests' C(all_reduce_perf) for the bandwidth on one host where it is installed (V(auto)), or never
      (V(never)). Its result has the same shape.
    type: str
    choices: [auto, never]
    default: auto
"""

    GRAPH = r"""
options:
  capture:
    description:
      - What is captured, each a part with its own O(deadline), one after the other, by the same ranks.
      - V(plain) are kernels as torch calls them, V(compiled) is what torch.compile makes of the layer.
      - The others are kernels of vLLM's own, given what vLLM gives them. Where one is not installed, vLLM would not use it with
        these GPUs, or there is no GPU, it is skipped, and C(gate.measured.captured) says why.
      - When only one of them fails, the verdict names the switch of vLLM that turns it off.
    type: list
    elements: str
    choices: [plain, compiled, custom_all_reduce, symmetric_memory, flashinfer_attention]
    default: [plain]
  modes:
    description: vLLM's cudagraph modes. V(PIECEWISE) has graphs around the collectives, V(FULL) has them inside.
    type: list
    elements: str
    choices: [PIECEWISE, FULL]
  batches:
    description: >-
      Batch sizes, one graph each. On a GPU by default V(1) to V(256) in powers of two, and of compiled code V(1), V(8) and
      V(256).
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
