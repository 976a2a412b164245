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
  bisect:
    description: After a failure that names no host, spend up to three rounds of trials to find it.
    type: bool
    default: true
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
  slowest_replay_ratio:
    description: A replay may take this many times as long as eager. V(0) demands no time.
    type: float
    default: 0
"""
