#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: packet_filter
short_description: Load the packet filter of a host, and say whom it lets in
description:
  - Writes C(/etc/lockstep/filter.json) and loads the table C(inet lockstep) of nftables, which closes what Ray, vLLM and
    the gates listen on to all but the hosts of the replica; vLLM's API and the readiness answer are open to O(clients) and
    to the routers of the inventory besides.
  - The port at which Ansible's connection reached the host stays open whatever range it lies in.
  - Warns of services of the host that the table closes to others.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.change
options:
  state:
    description: Whether the host has the filter.
    type: str
    choices: [present, absent]
    default: present
  clients:
    description: >-
      Addresses and networks (CIDR) that may reach the API and the readiness answer of a head; V(controller) is where Ansible's
      connection to the host comes from, V(any) is everybody.
    type: list
    elements: str
    default: [controller]
  open:
    description: >-
      Other services of the host on ports that would be closed, each with C(ports) (C(51820) or C(4000-4100)), C(protocol)
      (C(tcp), C(udp); tcp when left out) and C(from) (addresses and networks; any when left out).
    type: list
    elements: dict
    default: []
  egress:
    description: >-
      Addresses and networks (CIDR) to which what runs as the user C(lockstep) may begin connections, besides the
      hosts of the replica; everywhere when left out.
    type: list
    elements: str
  routers:
    description: Addresses of the routers. Filled in by the action.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Load packet filter
  lockstep.vllm.packet_filter:
    clients: [controller, 10.40.0.0/16]
    open:
      - {ports: 51820, protocol: udp}
"""

RETURN = r"""
record:
  description: The content of filter.json.
  returned: when present
  type: dict
table:
  description: Why the kernel's table was loaded; empty where it was as wanted.
  returned: when present
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.host import filter_setup
from ansible_collections.lockstep.vllm.plugins.module_utils.ray import firewall_live


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "clients": {"type": "list", "elements": "str", "default": ["controller"]},
            "open": {"type": "list", "elements": "dict", "default": []},
            "egress": {"type": "list", "elements": "str"},
            "routers": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    params, check = module.params, module.check_mode
    try:
        if params["state"] == "absent":
            there = firewall_live.SETTINGS.exists()
            if there and not check:
                records.remove(firewall_live.SETTINGS)
                firewall_live.remove()
            module.exit_json(changed=there)
        record = filter_setup.record(
            params["clients"], params["routers"], params["open"], params["egress"], filter_setup.ssh_connection()
        )
        changed = filter_setup.read() != record if check else records.write(firewall_live.SETTINGS, record)
        before = firewall_live.state()["problem"]
        loaded = bool(before) if check else firewall_live.apply()
        for warning in filter_setup.cut_off():
            module.warn(warning)
    except firewall_live.Unusable as error:
        module.fail_json(**Stop.of(error, "nft list table inet lockstep").as_result())
    module.exit_json(changed=changed or loaded, record=record, table=before)


if __name__ == "__main__":
    main()
