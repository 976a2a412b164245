#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: stamp
short_description: Record on a host that its gates passed for exactly what it runs now
description:
  - A host stamp lets Ray start on the host, a replica stamp lets vLLM start on the head. Each holds the fingerprint that
    it was given for, and is void as soon as anything in it changes.
  - Refuses to stamp when any gate did not pass, or when no gate ran.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.record
options:
  kind:
    description: Which stamp.
    type: str
    choices: [host, replica]
    required: true
  state:
    description: V(absent) removes the stamp.
    type: str
    choices: [present, absent]
    default: present
  gates:
    description: Results of the gates that ran, as the gates' modules return them.
    type: list
    elements: dict
    default: []
  hosts:
    description: For a replica stamp, each host of the replica with the digest of its fingerprint.
    type: dict
    default: {}
  run:
    description: The run that ran the gates.
    type: str
"""

EXAMPLES = r"""
- name: Stamp host
  lockstep.vllm.stamp:
    kind: host
    gates: "{{ [driver.gate, graph.gate] }}"
    run: "{{ admission_run }}"
"""

RETURN = r"""
stamp:
  description: The stamp as it is now; null when there is none.
  returned: always
  type: dict
digest:
  description: Digest of this host's fingerprint as it is now.
  returned: always
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.admission import fingerprint, stamps
from ansible_collections.lockstep.vllm.plugins.module_utils.core import records


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "kind": {"type": "str", "choices": ["host", "replica"], "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "gates": {"type": "list", "elements": "dict", "default": []},
            "hosts": {"type": "dict", "default": {}},
            "run": {"type": "str"},
        },
        supports_check_mode=True,
    )
    params = module.params
    path = records.HOST_STAMP if params["kind"] == "host" else records.REPLICA_STAMP
    identity = fingerprint.current()
    digest = fingerprint.digest(identity)
    if params["state"] == "absent":
        changed = path.exists() if module.check_mode else records.remove(path)
        module.exit_json(changed=changed, stamp=None, digest=digest)
    failed = [
        f"{gate.get('gate')} ({gate.get('verdict')})" for gate in params["gates"] if gate.get("verdict") != "pass"
    ]
    if failed or not params["gates"]:
        module.fail_json(msg=f"no {params['kind']} stamp is given: {', '.join(failed) or 'no gate ran'}", digest=digest)
    gates, run, at = params["gates"], params["run"], records.now()
    stamp: stamps.HostStamp | stamps.ReplicaStamp
    if params["kind"] == "host":
        stamp = stamps.host_stamp(gates, run, at, identity, digest)
    else:
        stamp = stamps.replica_stamp(gates, run, at, params["hosts"])
    if not module.check_mode:
        records.write(path, stamp)
    module.exit_json(changed=True, stamp=stamp, digest=digest)


if __name__ == "__main__":
    main()
