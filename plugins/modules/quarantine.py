#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: quarantine
short_description: Keep a host out of Ray, or lift the quarantine
description:
  - A host in quarantine does not start Ray, also after a reboot and with no controller running. The record on the host
    names its reason, its owner and its run.
  - It takes effect at the next start of Ray; a Ray that runs is not stopped by it.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.record
options:
  state:
    description: V(present) puts the host into quarantine, V(absent) lifts it.
    type: str
    choices: [present, absent]
    default: present
  kind:
    description: >-
      V(changing) while a run works on the host, which the next run completes; V(failed) when its gates failed;
      V(operator) when a person asked for it, which no run lifts by itself.
    type: str
    choices: [changing, failed, operator]
    default: operator
  reason:
    description: Why. Required with O(state=present).
    type: str
  owner:
    description: Who asks, as user@controller. Required with O(state=present).
    type: str
  run:
    description: The run that asks.
    type: str
  kinds:
    description: With O(state=absent), which kinds of quarantine may be lifted.
    type: list
    elements: str
    choices: [changing, failed, operator]
    default: [changing, failed]
"""

EXAMPLES = r"""
- name: Quarantine host while its memory is replaced
  lockstep.vllm.quarantine:
    reason: DIMM swap, ticket 4711
    owner: ada@ops1

- name: Lift quarantine
  lockstep.vllm.quarantine:
    state: absent
    kinds: [operator]
"""

RETURN = r"""
quarantine:
  description: The record as it is now (or would be, in check mode); null when the host is not in quarantine.
  returned: always
  type: dict
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.admission import quarantine
from ansible_collections.lockstep.vllm.plugins.module_utils.core import host_record, records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop

KINDS = [kind.value for kind in quarantine.QuarantineKind]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "kind": {"type": "str", "choices": KINDS, "default": "operator"},
            "reason": {"type": "str"},
            "owner": {"type": "str"},
            "run": {"type": "str"},
            "kinds": {"type": "list", "elements": "str", "choices": KINDS, "default": ["changing", "failed"]},
        },
        required_if=[("state", "present", ["reason", "owner"])],
        supports_check_mode=True,
    )
    params = module.params
    try:
        present = quarantine.parse(records.read(records.QUARANTINE))
    except records.RecordError as error:
        present = quarantine.Quarantine(None, str(error))
    if params["state"] == "absent":
        lift(module, present)
    kind, operator = quarantine.QuarantineKind(params["kind"]), quarantine.QuarantineKind.OPERATOR
    if present and present.kind == operator and kind != operator:
        module.exit_json(changed=False, quarantine=present.as_dict())
    record = quarantine.Quarantine(kind, params["reason"], params["owner"], params["run"], records.now())
    if present and dataclasses.replace(record, at=present.at) == present:
        module.exit_json(changed=False, quarantine=present.as_dict())
    if not module.check_mode:
        records.write(records.QUARANTINE, record.as_dict())
    module.exit_json(changed=True, quarantine=record.as_dict())


def _own_name() -> str:
    """This host's name in the inventory; empty where it was never prepared."""
    try:
        record = host_record.stored()
    except records.RecordError:
        return ""
    return record["host"] if record else ""


def lift(module: AnsibleModule, present: quarantine.Quarantine | None) -> None:
    if present is None:
        module.exit_json(changed=False, quarantine=None)
        return
    if present.kind is None:
        stop = Stop(f"{present.reason}. A damaged record keeps the host out", f"rm {records.QUARANTINE}")
        module.fail_json(**stop.as_result(), quarantine=present.as_dict())
    elif present.kind not in module.params["kinds"]:
        kind, name = present.kind, _own_name()
        stop = Stop(
            f"this host is in quarantine by {present.owner} ({kind}): {present.reason}",
            f'ansible {name} -m lockstep.vllm.quarantine -a \'{{"state": "absent", "kinds": ["{kind}"]}}\''
            if name
            else "",
        )
        module.fail_json(**stop.as_result(), quarantine=present.as_dict())
    if not module.check_mode:
        records.remove(records.QUARANTINE)
    module.exit_json(changed=True, quarantine=None)


if __name__ == "__main__":
    main()
