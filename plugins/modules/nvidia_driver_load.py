#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_driver_load
short_description: Make the running kernel use the installed NVIDIA driver
description:
  - Stops the services that hold the driver (persistence daemon, fabric manager, DCGM, exporters), unloads the modules in
    order, loads the installed ones, and starts the services again.
  - Never ends another process. Whoever else holds the driver is named, and a reboot is asked for instead, as far as
    O(policy) allows. The reboot itself is left to M(ansible.builtin.reboot).
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.change
options:
  version:
    description: The version that is to run.
    type: str
    required: true
  flavor:
    description: >-
      The kernel modules that are to run. Without it either will do. Before anything is unloaded the module fails where
      C(modprobe) would load others, or none.
    type: str
    choices: [open, proprietary]
  policy:
    description: Reload where nothing else holds the driver, else reboot (V(either)); or only one of them; or nothing.
    type: str
    choices: [either, reload, reboot, neither]
    default: either
  services:
    description: Further units that may be stopped and are started again.
    type: list
    elements: str
    default: []
  run:
    description: Names the folder for evidence below C(/var/lib/lockstep/evidence).
    type: str
    default: by-hand
"""

EXAMPLES = r"""
- name: Load installed driver
  lockstep.vllm.nvidia_driver_load:
    version: 550.127.05
    flavor: open
  register: loaded

- name: Reboot where a process holds the driver
  ansible.builtin.reboot:
  when: loaded.action == 'reboot'
"""

RETURN = r"""
action:
  description: >-
    C(none), the version runs already; C(reload), it was loaded now; C(reboot), only a reboot brings it in; C(refused)
    with O(policy=neither), and with O(policy=reload) where the driver is held.
  returned: always
  type: str
reasons:
  description: Why, one reason each; names every holder.
  returned: always
  type: list
  elements: str
evidence:
  description: Paths on the host of the diagnostics of the failure, among them the kernel's messages.
  returned: on failure
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.core import evidence
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import kernel_module
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import evidence_bundle


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "flavor": {"type": "str", "choices": ["open", "proprietary"]},
            "policy": {"type": "str", "choices": ["either", "reload", "reboot", "neither"], "default": "either"},
            "services": {"type": "list", "elements": "str", "default": []},
            "run": {"type": "str", "default": "by-hand"},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        stoppable = (*kernel_module.SERVICES, *params["services"])
        now = kernel_module.loaded_now()
        decision = kernel_module.decide(now, params["version"], params["policy"], stoppable, params["flavor"])
    else:
        try:
            decision = kernel_module.load(
                params["version"], params["policy"], flavor=params["flavor"], services=params["services"]
            )
        except kernel_module.LoadFailed as failure:
            folder = evidence_bundle.folder(params["run"], f"driver-{params['version']}-load")
            module.fail_json(**failure.stop.as_result(), evidence=list(evidence.driver(folder)))
    module.exit_json(changed=decision.action == "reload", action=decision.action, reasons=list(decision.reasons))


if __name__ == "__main__":
    main()
