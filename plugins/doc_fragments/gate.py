# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the modules of the gates have in common."""

from __future__ import annotations


class ModuleDocFragment:
    """``lockstep.vllm.gate``: every gate; ``lockstep.vllm.gate.rank_group``: the NCCL and the graph gate besides."""

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
    description: Seconds until a verdict. At most five more pass until the module returns.
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
    description: Runs no gate in check mode, since a gate takes the GPUs. Returns an empty RV(gate).
"""
