#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: record_inputs
short_description: Record what a role was applied from, so that a later run knows that nothing changed
description:
  - Writes C(/var/lib/lockstep/manifest/<role>.json) with a digest of the role's files, its variables' values and the
    topology that it reads, and the checksum of every file that the role manages. Root alone reads it, and both are keyed with
    a random key that the host makes for itself (C(/var/lib/lockstep/manifest/key)), since secrets are among them.
  - The digest is taken on the controller, in an action of the same name. Where the inventory has no group C(lockstep) there is
    no later run that would compare, and nothing is recorded.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.record
options:
  role:
    description: Name of the role that was applied.
    type: str
    required: true
  files:
    description: Absolute paths of the files that the role manages on the host.
    type: list
    elements: str
    default: []
  variables:
    description: >-
      Variables that the role was applied with where they are not the inventory's, such as the driver that a host was taken back
      to. The digest is then that of an inventory which declares them.
    type: dict
  inputs:
    description: The digest. Filled in by the action.
    type: str
attributes:
  diff_mode:
    description: The record is a digest, not meant to be read by people.
"""

EXAMPLES = r"""
- name: Record inputs of this role
  lockstep.vllm.record_inputs:
    role: gpu_host
    files: [/etc/lockstep/host.json]
"""

RETURN = r"""
missing:
  description: Managed files that are not there.
  returned: on failure
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.core import manifests, records


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "role": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "str", "default": []},
            "variables": {"type": "dict"},
            "inputs": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    role, files = module.params["role"], module.params["files"]
    path = records.MANIFEST / f"{role}.json"
    key = manifests.key() if module.check_mode else manifests.make_key()
    record = manifests.manifest(role, module.params["inputs"], files, key)
    missing = [name for name, digest in record["files"].items() if digest is None]
    if module.check_mode:
        module.exit_json(changed=records.read(path) != record)
    if missing:
        module.fail_json(msg=f"role {role} manages {', '.join(missing)}, which is not there", missing=missing)
    module.exit_json(changed=records.write(path, record, mode=0o600))


if __name__ == "__main__":
    main()
