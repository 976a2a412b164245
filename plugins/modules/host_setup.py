#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: host_setup
short_description: Put Lockstep's library, tables and the host's own record onto a host
description:
  - Copies C(plugins/module_utils/) to C(/opt/lockstep/lib/lockstep/), the tables of C(data/) as JSON to
    C(/opt/lockstep/share/), and, with O(interface), writes C(/etc/lockstep/host.json) from the inventory.
  - What is there and not in the project is removed.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.change
options:
  interface:
    description: >-
      The network interface that carries the cluster's traffic. Without it only the library and the tables are put onto the
      host.
    type: str
  gpus:
    description: How many GPUs the host has. Needed with O(interface).
    type: int
  gpu_model:
    description: Whole words of the name of every GPU.
    type: str
  zone:
    description: The zone or rack that the host stands in.
    type: str
  address:
    description: The host's address on that interface; read where the inventory has no group C(lockstep).
    type: str
  peers:
    description: >-
      Address of every host of the replica by its name; read where the inventory has no group C(lockstep). The host by itself
      when left out.
    type: dict
  head:
    description: Which of O(peers) is the head; needed where there are several.
    type: str
  host:
    description: The host's name in the inventory. Filled in by the action.
    type: str
  replica:
    description: The replica that it belongs to. Filled in by the action.
    type: dict
  sources:
    description: The library's files. Filled in by the action.
    type: dict
    default: {}
  tables:
    description: The tables. Filled in by the action.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Install library, data tables and host record
  lockstep.vllm.host_setup:
    interface: eth0
    gpus: 8
"""

RETURN = r"""
files:
  description: Every file that is managed here.
  returned: always
  type: list
  elements: str
paths:
  description: What changed.
  returned: always
  type: list
  elements: str
record:
  description: The content of host.json.
  returned: with O(interface)
  type: dict
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import fabric
from ansible_collections.lockstep.vllm.plugins.module_utils.host import setup as host_setup


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "interface": {"type": "str"},
            "gpus": {"type": "int"},
            "gpu_model": {"type": "str"},
            "zone": {"type": "str"},
            "address": {"type": "str"},
            "peers": {"type": "dict"},
            "head": {"type": "str"},
            "host": {"type": "str"},
            "replica": {"type": "dict"},
            "sources": {"type": "dict", "default": {}},
            "tables": {"type": "dict", "default": {}},
        },
        required_together=[("interface", "gpus")],
        supports_check_mode=True,
    )
    params = module.params
    files = [str(host_setup.LIBRARY / name) for name in params["sources"]]
    files += [str(records.SHARE / name) for name in params["tables"]]
    paths = host_setup.install_library(params["sources"], params["tables"], dry=module.check_mode)
    if params["interface"] is None:
        module.exit_json(changed=bool(paths), paths=paths, files=sorted(files))
    record = host_setup.host_record(params["host"], params["replica"], params, fabric.switch_ports())
    if read(records.HOST) != record if module.check_mode else records.write(records.HOST, record):
        paths.append(str(records.HOST))
    module.exit_json(changed=bool(paths), paths=paths, record=record, files=sorted([*files, str(records.HOST)]))


def read(path: Path) -> dict[str, Any] | None:
    try:
        return records.read(path)
    except records.RecordError:
        return None


if __name__ == "__main__":
    main()
