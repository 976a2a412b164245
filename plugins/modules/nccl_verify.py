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
    replica through Ray. When that fails and names no host, rounds of trials bisect to the bad host or pair.
  - Across hosts, what NCCL's log says that it used and what the network cards counted is compared with what the hosts have. A
    fall to sockets beside an InfiniBand, RoCE or EFA device that can be used fails the gate by a code of its own.
  - The work runs in a child that ends at O(deadline), after its stacks, the NCCL log, the kernel's messages and
    nvidia-smi's state are saved. Always ends, leaves no process and no port.
  - Without a GPU the same code runs on CPU with gloo, and C(gate.backend) shows it.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.gate
  - lockstep.vllm.gate.rank_group
  - lockstep.vllm.gate.nccl
"""

EXAMPLES = r"""
- name: Verify collectives within the host
  lockstep.vllm.nccl_verify:
    scope: host
    deadline: 120
    run: "{{ admission_run }}"

- name: Verify collectives across the replica
  lockstep.vllm.nccl_verify:
    scope: replica
    deadline: 300
    floor_gbps: 288
    run: "{{ admission_run }}"
"""

RETURN = r"""
gate:
  description: >-
    The gate's result: its C(verdict) (V(pass), V(fail), or V(timeout) when its deadline ended it), the C(host) or
    C(pair) to blame, the C(cause), what to type C(next), and its C(code), one of C(ok), C(could_not_run), C(no_gpus),
    C(memory_held), C(init_hangs), C(init_failed), C(rank_killed), C(host_lost), C(out_of_time), C(host_missing),
    C(gpus_busy), C(not_placed), C(ray_down), C(ray_refused), C(ray_hangs), C(ray_failed), C(wrong_arithmetic),
    C(wrong_sum), C(wrong_data), C(slow_link), C(no_floor), C(fell_to_sockets), C(fell_from_nvlink), C(bytes_elsewhere),
    C(collective_hangs) and C(collective_error).
  returned: always
  type: dict
  sample:
    gate: nccl
    verdict: fail
    code: slow_link
    seconds: 41.7
    host: a2
    pair: null
    measured: {busbw_gbps: {all_reduce: 41.2}, ranks: 16, hosts: [a1, a2]}
    floor: {busbw_gbps: 288, operation: all_reduce}
    backend: nccl
    evidence: []
    cause: "busbw of all_reduce over a1, a2: 41.2 GB/s, floor 288 GB/s (given by the operator)"
    next: ansible-playbook playbooks/diagnose.yml --limit a2
    warnings: []
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import entry_point


def main() -> None:
    module = AnsibleModule(
        argument_spec={**entry_point.RANK_GROUP_ARGUMENTS, **entry_point.NCCL_ARGUMENTS}, supports_check_mode=True
    )
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, gate={})
    entry_point.finish(module, "nccl", lambda: entry_point.run_one(module.params, entry_point.nccl))


if __name__ == "__main__":
    main()
