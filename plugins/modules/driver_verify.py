#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: driver_verify
short_description: The driver gate, whether a host's driver and GPUs are fit to serve
description:
  - Package, user space, loaded module and fabric manager have to be one version; the declared GPUs have to be there and
    healthy (ECC, row remaps, Xid and SXid since boot, throttling, PCIe, MIG, persistence, NVLink); no reboot may be pending.
  - Known issues that fit are named. A suspect one warns, a bad one fails the gate unless O(allow_known_bad) names it.
  - Always ends, also when the driver hangs. Reads only.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.gate
options:
  version:
    description: >-
      The version that has to run. Left out, the one that the host is on its way to or was accepted with last, and on
      a host that was never changed any version whose parts agree.
    type: str
  gpus:
    description: How many GPUs the host has.
    type: int
    required: true
  gpu_model:
    description: Whole words of the name of every GPU, such as V(H100).
    type: str
  pcie_width:
    description: >-
      Lanes of every GPU's PCIe link; a narrower one fails. Left out, GPUs of one model are compared with each other, and
      what is narrower than a GPU could be is only warned of.
    type: int
  fabric_manager:
    description: >-
      V(auto) wants fabric manager where NVSwitches are found, with C(nvlsm) and the module C(ib_umad) where ConnectX
      functions manage them. V(absent) asks for none of it, nor for IMEX.
    type: str
    choices: [auto, present, absent]
    default: auto
  packaged:
    description: Whether the driver was installed as packages.
    type: bool
    default: true
  flavor:
    description: >-
      The kernel modules that have to run, and that C(modprobe) has to load next. Left out, those of the driver that the
      host is on its way to or was accepted with last.
    type: str
    choices: [open, proprietary]
  allow_known_bad:
    description: Ids of known-bad combinations that are accepted all the same.
    type: list
    elements: str
    default: []
  host:
    description: The name of the host in the result.
    type: str
  deadline:
    description: Seconds after which a driver that does not answer counts as hanging.
    type: int
    default: 15
attributes:
  check_mode:
    support: full
    description: Reads only; outside check mode a gate that does not pass leaves evidence.
"""

EXAMPLES = r"""
- name: Verify driver
  lockstep.vllm.driver_verify:
    version: 550.127.05
    gpus: 8
    gpu_model: H100
    host: "{{ inventory_hostname }}"
"""

RETURN = r"""
gate:
  description: The gate's result, as every gate gives it (C(gate), C(verdict), C(code), C(seconds), C(cause), C(next), …).
  returned: always
  type: dict
issues:
  description: Known issues that fit this host.
  returned: always
  type: list
  elements: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.core import evidence, records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import change_record
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import driver as driver_gate
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import evidence_bundle


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str"},
            "gpus": {"type": "int", "required": True},
            "gpu_model": {"type": "str"},
            "pcie_width": {"type": "int"},
            "fabric_manager": {"type": "str", "choices": ["auto", "present", "absent"], "default": "auto"},
            "packaged": {"type": "bool", "default": True},
            "flavor": {"type": "str", "choices": ["open", "proprietary"]},
            "allow_known_bad": {"type": "list", "elements": "str", "default": []},
            "host": {"type": "str"},
            "deadline": {"type": "int", "default": 15},
            "fail": {"type": "bool", "default": True},
            "run": {"type": "str", "default": "by-hand"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        checked = driver_gate.check(expected(params), host=params["host"], deadline=float(params["deadline"]))
    except (OSError, ValueError, records.RecordError) as error:
        stop = Stop.of(error, "ansible-playbook site.yml")
        stop = Stop(f"the driver gate could not be evaluated: {stop.cause}", stop.next)
        module.fail_json(**stop.as_result())
    gate = checked["gate"]
    result = {name: checked[name] for name in ("gate", "issues")}
    for warning in gate["warnings"]:
        module.warn(warning)
    if gate["verdict"] != "pass" and not module.check_mode:
        gate["evidence"] = list(evidence.driver(evidence_bundle.folder(params["run"], "driver")))
    if params["fail"] and gate["verdict"] != "pass":
        where = params["host"] or "this host"
        stop = Stop(f"driver gate: {gate['code']} on {where}: {gate['cause']}", gate["next"])
        module.fail_json(**stop.as_result(), **result)
    module.exit_json(changed=False, **result)


def expected(params: dict[str, Any]) -> driver_gate.Expected:
    recorded = change_record.expected(records.read(records.DRIVER))
    version = params["version"] or (recorded["version"] if recorded else None)
    known = recorded.get("flavor") if recorded and recorded["version"] == version else None
    return driver_gate.Expected(
        version=version,
        gpus=params["gpus"],
        gpu_model=params["gpu_model"],
        pcie_width=params["pcie_width"],
        fabric_manager=params["fabric_manager"],
        packaged=params["packaged"],
        flavor=params["flavor"] or known,
        allowed=tuple(params["allow_known_bad"]),
    )


if __name__ == "__main__":
    main()
