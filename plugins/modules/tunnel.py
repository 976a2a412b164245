#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: tunnel
short_description: A host's end of the WireGuard tunnel between the hosts of its replica
description:
  - With O(state=key) makes the host's private key (C(/etc/wireguard/lockstep0.key), root's alone) unless it has one, and
    returns the public one.
  - With O(state=present) writes C(/etc/wireguard/lockstep0.conf) for C(wg-quick@lockstep0.service), and
    C(/etc/lockstep/tunnel.json), by which Ray, vLLM, the gates and the packet filter take the tunnel's addresses for those of
    the hosts. Starts nothing.
  - With O(state=absent) removes both files. The key stays.
  - The host and its replica come from C(/etc/lockstep/host.json).
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.change
options:
  state:
    description: What to do.
    type: str
    choices: [key, present, absent]
    required: true
  network:
    description: IPv4 network of the tunnel in CIDR notation; needed when V(present).
    type: str
  port:
    description: UDP port at which the hosts reach each other; needed when V(present).
    type: int
  public_keys:
    description: Public key of every host of the replica, by name; needed when V(present).
    type: dict
"""

EXAMPLES = r"""
- name: Make key of the tunnel
  lockstep.vllm.tunnel:
    state: key
  register: __ray_node_key

- name: Configure tunnel
  lockstep.vllm.tunnel:
    state: present
    network: 198.18.0.0/24
    port: 6389
    public_keys: {a1: "{{ hostvars.a1.__ray_node_key.public_key }}", a2: "{{ hostvars.a2.__ray_node_key.public_key }}"}
"""

RETURN = r"""
public_key:
  description: The host's public key; empty in check mode where it has none yet.
  returned: when key
  type: str
hosts:
  description: Names of the hosts of the replica.
  returned: when key
  type: list
  elements: str
place:
  description: >-
    The C(address) by which the other hosts know this one, and the C(interface) on which ranks meet: loopback where there are no
    others. Empty in check mode on a bare host.
  returned: when present or absent
  type: dict
peers:
  description: Address in the tunnel of every host, by name.
  returned: when present
  type: dict
problem:
  description: Why the tunnel in the kernel is not the configured one; empty where it is.
  returned: when present
  type: str
"""

import subprocess

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.core import host_record, records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.ray import tunnel_live

NEXT = "ansible-playbook site.yml"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["key", "present", "absent"], "required": True},
            "network": {"type": "str"},
            "port": {"type": "int"},
            "public_keys": {"type": "dict", "no_log": False},
        },
        required_if=[("state", "present", ("network", "port", "public_keys"))],
        supports_check_mode=True,
    )
    try:
        _run(module)
    except records.RecordError as error:
        module.fail_json(**Stop.of(error, NEXT).as_result())
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        module.fail_json(**Stop(f"the tunnel cannot be configured: {error}", NEXT).as_result())


def _run(module: AnsibleModule) -> None:
    params, check = module.params, module.check_mode
    if params["state"] == "key":
        changed = not tunnel_live.KEY.exists() if check else tunnel_live.make_key()
        hosts = sorted((records.read(records.HOST) or {}).get("peers", ()))
        module.exit_json(changed=changed, public_key=tunnel_live.public_key(), hosts=hosts)
    if params["state"] == "absent":
        changed = tunnel_live.remove(dry=check)
        module.exit_json(
            changed=changed, place=tunnel_live.place(host_record.without_tunnel() if records.HOST.exists() else None)
        )
    keys = params["public_keys"]
    if check and not (records.HOST.exists() and keys and all(keys.values())):
        module.exit_json(changed=True, place={}, peers={}, problem="")  # made from what check mode has not made
    made, text = tunnel_live.wanted(params, keys)
    changed = tunnel_live.write(made, text, dry=check)
    place = tunnel_live.place(host_record.through(host_record.without_tunnel(), made))
    problem = "" if check else tunnel_live.state()["problem"]
    module.exit_json(changed=changed, place=place, peers=made["peers"], problem=problem)


if __name__ == "__main__":
    main()
