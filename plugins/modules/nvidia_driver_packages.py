#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_driver_packages
short_description: Fetch or install the packages of one exact NVIDIA driver
description:
  - Works out the compute-only package set of one driver version as the repository in question names it, with the exact
    apt version of every package.
  - V(fetched) downloads it and changes nothing else. V(installed) installs it in one transaction, removes what
    belongs to another version, pins every package and holds it. M(lockstep.vllm.nvidia_driver_preflight) says beforehand
    whether that can succeed.
  - An interrupted dpkg is repaired first. Locks of apt are waited for, and their holder is named when they are not freed.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.change
options:
  version:
    description: Full driver version, such as V(550.127.05).
    type: str
    required: true
  state:
    description: Whether the packages are only downloaded, or installed.
    type: str
    choices: [fetched, installed]
    default: installed
  source:
    description: Where the packages come from.
    type: str
    choices: [nvidia, mirror, ubuntu, debian]
    default: nvidia
  flavor:
    description: Which kernel modules.
    type: str
    choices: [open, proprietary]
    default: open
  fabric_manager:
    description: V(auto) installs fabric manager where NVSwitches are found, or where it is installed already.
    type: str
    choices: [auto, present, absent]
    default: auto
  prebuilt_modules:
    description: >-
      Take Ubuntu's signed prebuilt modules, for every kernel that may boot next, instead of DKMS. Only with
      O(source=ubuntu).
    type: bool
    default: false
  repository_url:
    description: The flat repository. Required with O(source=nvidia) and O(source=mirror).
    type: str
  sources_file:
    description: apt's source file for that repository; its list is read anew where apt does not know the driver yet.
    type: path
  deadline:
    description: Seconds that one command of apt may take.
    type: int
    default: 1800
  lock_deadline:
    description: Seconds to wait for apt's locks.
    type: int
    default: 300
  run:
    description: Names the folder for evidence below C(/var/lib/lockstep/evidence).
    type: str
    default: by-hand
requirements:
  - apt, on Debian or Ubuntu
"""

EXAMPLES = r"""
- name: Download driver packages
  lockstep.vllm.nvidia_driver_packages:
    version: 550.127.05
    state: fetched
    repository_url: https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2204/x86_64
"""

RETURN = r"""
plan:
  description: >-
    C(desired) (every package with its exact version), C(pins), C(install), C(remove), C(hold), C(purge), C(broken),
    C(repair).
  returned: always
  type: dict
log:
  description: The end of apt's output.
  returned: on failure
  type: str
evidence:
  description: Paths on the host of the diagnostics of the failure, among them the ends of apt's and of DKMS' build logs.
  returned: on failure
  type: list
  elements: str
next:
  description: The next command to type, where one is known.
  returned: on failure
  type: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.core import evidence, records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import (
    apt_lock,
    boot_kernels,
    change_record,
    transaction,
)
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import install as driver_install
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import packages as driver_packages
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import repository as apt_repository
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import state as driver_state
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import evidence_bundle

LOG_LINES = 30


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["fetched", "installed"], "default": "installed"},
            "source": {"type": "str", "choices": ["nvidia", "mirror", "ubuntu", "debian"], "default": "nvidia"},
            "flavor": {"type": "str", "choices": ["open", "proprietary"], "default": "open"},
            "fabric_manager": {"type": "str", "choices": ["auto", "present", "absent"], "default": "auto"},
            "prebuilt_modules": {"type": "bool", "default": False},
            "repository_url": {"type": "str"},
            "sources_file": {"type": "path"},
            "deadline": {"type": "int", "default": 1800},
            "lock_deadline": {"type": "int", "default": 300},
            "run": {"type": "str", "default": "by-hand"},
        },
        required_if=[("source", "nvidia", ["repository_url"]), ("source", "mirror", ["repository_url"])],
        supports_check_mode=True,
    )
    params = module.params
    try:
        apply(module)
    except (
        driver_packages.PackageError,
        apt_repository.UnreadableIndex,
        apt_lock.Locked,
        records.RecordError,
    ) as error:
        module.fail_json(**Stop.of(error).as_result())
    except driver_install.StepFailed as failure:
        folder = evidence_bundle.folder(params["run"], f"driver-{params['version']}-{params['state']}")
        module.fail_json(
            **Stop(str(failure), "less /var/log/apt/term.log").as_result(),
            log="\n".join(failure.log.splitlines()[-LOG_LINES:]),
            evidence=list(evidence.driver(folder, failure.log)),
        )


def apply(module: AnsibleModule) -> None:
    params = module.params
    state = driver_state.driver_state(also=())
    work = plan(params, state)
    result = {"plan": as_json(work)}
    limits = {"deadline": float(params["deadline"]), "lock_deadline": float(params["lock_deadline"])}
    if params["state"] == "fetched":
        changed = bool(work.install)
        if changed and not module.check_mode:
            refresh(params, work, limits)
            changed = driver_install.fetch(work, params["version"], **limits)
        module.exit_json(changed=changed, **result)
    pinned = driver_install.is_pinned(params["version"], work.pins)
    if not module.check_mode:
        if work.install or work.remove:
            refresh(params, work, limits)
        begin(params, bool(work.install or work.remove))
        if work.needed or not pinned:
            driver_install.install(work, params["version"], **limits)
    module.exit_json(changed=work.needed or not pinned, **result)


def plan(params: dict[str, Any], state: driver_state.DriverState) -> driver_install.Plan:
    return transaction.plan(transaction.Declared.parse(params), state, boot_kernels.read().bootable)


def refresh(params: dict[str, Any], work: driver_install.Plan, limits: dict[str, float]) -> None:
    if params["sources_file"] and work.install and not driver_install.known_to_apt(work):
        driver_install.update(Path(params["sources_file"]), **limits)


def begin(params: dict[str, Any], touches_packages: bool) -> None:
    target = change_record.declared(params)
    record = change_record.parse(records.read(records.DRIVER))
    if touches_packages or change_record.is_changing_to_another(record, target):
        records.write(records.DRIVER, change_record.begin(record, target, records.now()))


if __name__ == "__main__":
    main()
