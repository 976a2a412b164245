#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: network_verify
short_description: The network gate, whether the hosts of a replica reach each other as Ray, NCCL and vLLM need
description:
  - Names resolve both ways and fast, the declared interface owns the address, full-size packets come through unfragmented,
    Ray's and vLLM's ports can be reached both ways, round trips and clocks agree, zones are alike, memlock and C(/dev/shm)
    suffice as the units see them, and RDMA ports are up where they are demanded.
  - All hosts of a replica have to run this at the same time (one task over all of them with C(strategy=linear) and enough
    forks, or C(async)), since each both answers and asks. A host listens on each port under test that nobody holds, for the
    time of the gate only; a port that a unit holds already is tried as it is.
  - Always ends at O(deadline) plus at most five seconds, and gives every port back.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment: [lockstep.vllm.gate]
options:
  deadline:
    description: Seconds until a verdict.
    type: float
    default: 60
  wait:
    description: Seconds that the hosts wait for each other. Less than O(deadline).
    type: float
    default: 30
  rtt_ms:
    description: Longest round trip between two hosts in milliseconds. V(0) demands nothing.
    type: float
    default: 5
  rdma:
    description: Demand an active RDMA port with a GID.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Runs as always, since it changes nothing.
"""

EXAMPLES = r"""
- name: Verify that hosts reach each other
  lockstep.vllm.network_verify:
    run: "{{ admission_run }}"
"""

RETURN = r"""
gate:
  description: >-
    The gate's result: its C(verdict) (V(pass), V(fail), or V(timeout) when its deadline ended it), the C(host) or
    C(pair) to blame, the C(cause), what to type C(next), and its C(code), one of C(ok), C(could_not_run), C(names),
    C(names_slow), C(interface), C(port_taken), C(unfiltered), C(peer_silent), C(port_blocked), C(mtu), C(zone), C(rtt),
    C(clock_skew), C(shm), C(memlock), C(rdma_down), C(probe_hangs) and C(probe_failed). C(gate.measured.problems)
    lists all that was found.
  returned: always
  type: dict
  sample:
    gate: network
    verdict: fail
    code: port_blocked
    seconds: 2.4
    host: a2
    pair: [a1, a2]
    measured: {look_up_seconds: 0.01, problems: [{code: port_blocked, host: a2}]}
    floor: {rtt_ms: 5.0, shm_mib: 1024}
    backend: null
    evidence: []
    cause: a2 does not let a1 reach its port 6381
    next: "On a2: nft list ruleset  (peers must reach 6381/tcp)"
    warnings: []
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import entry_point, evidence_bundle, runner
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import network as network_gate


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "deadline": {"type": "float", "default": 60},
            "wait": {"type": "float", "default": 30},
            "run": {"type": "str", "default": "by-hand"},
            "rtt_ms": {"type": "float", "default": 5},
            "rdma": {"type": "bool", "default": False},
            "fail": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    if not 0 < params["wait"] < params["deadline"]:
        module.fail_json(
            msg=f"wait ({params['wait']:g} s) has to be positive and below deadline ({params['deadline']:g} s)"
        )
    limits = network_gate.Limits(
        rtt_ms=params["rtt_ms"] or None,
        rdma=params["rdma"],
    )
    entry_point.finish(
        module,
        "network",
        lambda: network_gate.check(
            runner.identity(),
            limits,
            seconds=params["deadline"],
            wait=params["wait"],
            evidence=evidence_bundle.folder(params["run"], "network"),
            library=records.LIB,
            user=runner.rank_user("lockstep"),
        ),
    )


if __name__ == "__main__":
    main()
