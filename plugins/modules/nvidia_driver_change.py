#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_driver_change
short_description: The driver change record of a host
description:
  - A change begins when M(lockstep.vllm.nvidia_driver_packages) touches the first package. It ends when the host serves
    again with the new driver, which O(state=accepted) records. Until then the host knows its rollback target.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.record
options:
  state:
    description: >-
      V(read) only reads. V(accepted) records that the driver to which the host was brought passed its gates and serves: it is
      the last known good one. V(restorable) fails when there is nothing to roll back to. V(completed) records that the
      rollout is completed: from then on it cannot be aborted.
    type: str
    choices: [read, accepted, restorable, completed]
    default: read
  version:
    description: The declared driver, for a host whose driver was never changed here. Required with O(state=accepted).
    type: str
  source:
    description: Where it came from. Required with O(state=accepted).
    type: str
  flavor:
    description: Its kernel modules. Required with O(state=accepted).
    type: str
"""

EXAMPLES = r"""
- name: Mark driver last known good
  lockstep.vllm.nvidia_driver_change:
    state: accepted
    version: 550.127.05
    source: nvidia
    flavor: open
"""

RETURN = r"""
record:
  description: >-
    C(verified), the driver that was accepted last; C(change), the change that is in progress; C(roll), what the host ran
    before the rollout, and when that was completed.
  returned: always
  type: dict
restore:
  description: The driver to roll back to.
  returned: when a change is in progress and a driver was verified before it
  type: dict
undo:
  description: >-
    What rolling back takes on this host now: steps C(repair), C(install), C(hold) and C(load), each with its reason. Empty
    where the change did not get as far as to change anything.
  returned: with O(state=restorable)
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import change_record
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import install as driver_install
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import state as driver_state
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import undo as driver_undo


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["read", "accepted", "restorable", "completed"], "default": "read"},
            "version": {"type": "str"},
            "source": {"type": "str"},
            "flavor": {"type": "str"},
        },
        required_if=[("state", "accepted", ["version", "source", "flavor"])],
        supports_check_mode=True,
    )
    try:
        known = change_record.parse(records.read(records.DRIVER))
    except records.RecordError as error:
        module.fail_json(**Stop.of(error, f"mv {records.DRIVER} {records.DRIVER}.damaged").as_result())
    params = module.params
    if params["state"] in ("accepted", "completed"):
        record = change_record.complete(known, records.now())
        if params["state"] == "accepted":
            declared = change_record.declared(params)
            try:
                record = change_record.accept(known, declared, driver_state.loaded_version(), records.now())
            except change_record.NotRunning as error:
                module.fail_json(msg=str(error))
        if not module.check_mode:
            records.write(records.DRIVER, record)
        module.exit_json(changed=record != known, record=record)
    try:
        restore: dict[str, Any] = {"restore": change_record.restore_target(known)}
    except change_record.NothingToRestore as error:
        if params["state"] == "restorable":
            module.fail_json(msg=str(error))
        restore = {}
    if params["state"] == "restorable":
        restore["undo"] = as_json(undo(known, restore["restore"]))
    module.exit_json(changed=False, record=known, **restore)


def undo(record: change_record.DriverRecord, target: change_record.Driver) -> dict[driver_undo.UndoStep, str]:
    state = driver_state.driver_state(also=())
    return driver_undo.undo(target, change_record.found_before(record), state, driver_install.current_preferences())


if __name__ == "__main__":
    main()
