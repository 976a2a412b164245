#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: nccl_verify
short_description: The NCCL gate, whether collectives are right and fast
description:
  - Runs all-reduce, all-gather, reduce-scatter and broadcast on known data, one rank per GPU, in the dtypes that vLLM
    uses and in small and large sizes, and checks every element. Then measures bus bandwidth by nccl-tests' definition
    and holds it against a floor for the card, the link and NCCL's version.
  - O(scope=host) stays on this host. O(scope=replica) runs on the head and places one rank per GPU on all hosts of the
    replica through Ray. When that fails and names no host, rounds of trials seek out the bad host or pair.
  - The work runs in a child that ends at O(deadline), after its stacks, the NCCL log, the kernel's messages and
    nvidia-smi's state are saved. Always ends, leaves no process and no port.
  - Without a GPU the same code runs on CPU with gloo, and the result says so.
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
      Lowest bus bandwidth of all-reduce in 10^9 bytes a second. By default the row of C(data/busbw_floors.yml) that fits;
      a card that is not there fails the gate, saying so. V(0) demands nothing.
    type: float
  link:
    description: What the traffic crosses, for choosing the floor.
    type: str
    choices: [auto, nvlink, pcie, ib, ethernet, cpu]
    default: auto
  nccl_tests:
    description: >-
      Take nccl-tests' C(all_reduce_perf) for the bandwidth on one host where it is installed (V(auto)), or never
      (V(never)). Its result has the same shape.
    type: str
    choices: [auto, never]
    default: auto
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
- name: Local collectives pass their gate
  lockstep.vllm.nccl_verify:
    scope: host
    deadline: 120
    run: "{{ admission_run }}"

- name: Collectives across the replica pass their gate
  lockstep.vllm.nccl_verify:
    scope: replica
    deadline: 300
    floor_gbps: 288
    run: "{{ admission_run }}"
"""

RETURN = r"""
gate:
  description: >-
    The gate's result, as every gate gives it (C(gate), C(verdict), C(code), C(host), C(pair), C(seconds), C(measured),
    C(floor), C(backend), C(evidence), C(cause), C(next), C(warnings)). Codes are C(ok), C(wrong_sum), C(wrong_data),
    C(wrong_arithmetic), C(slow_link), C(no_floor), C(rank_killed), C(host_lost), C(collective_hangs),
    C(collective_error), C(out_of_time), C(init_hangs), C(init_failed), C(memory_held), C(no_gpus), C(host_missing),
    C(gpus_busy), C(not_placed), C(ray_down), C(ray_refused), C(ray_hangs), C(ray_failed) and C(could_not_run).
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import entry_point, runner

WORK = ("dtypes", "sizes", "operations", "busbw_bytes", "iterations")


def main() -> None:
    operations = ["all_reduce", "all_gather", "reduce_scatter", "broadcast"]
    module = AnsibleModule(
        argument_spec={
            **entry_point.COMMON,
            "dtypes": {"type": "list", "elements": "str"},
            "sizes": {"type": "list", "elements": "int"},
            "operations": {"type": "list", "elements": "str", "choices": operations},
            "busbw_bytes": {"type": "int"},
            "iterations": {"type": "int"},
            "floor_gbps": {"type": "float"},
            "link": {
                "type": "str",
                "choices": ["auto", "nvlink", "pcie", "ib", "ethernet", "cpu"],
                "default": "auto",
            },
            "nccl_tests": {"type": "str", "choices": ["auto", "never"], "default": "auto"},
        },
        supports_check_mode=True,
    )
    wish = module.params
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, gate={})
    own = {"floor_gbps": wish["floor_gbps"], "link": wish["link"], "nccl_tests": wish["nccl_tests"] == "auto"}
    params = {name: wish[name] for name in WORK}
    entry_point.finish(module, "nccl", lambda: runner.run(entry_point.request("nccl", wish, params, **own)))


if __name__ == "__main__":
    main()
