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
    belongs to another version, pins every package and holds it, also where installing fails. V(kept) installs nothing.
    What is installed is pinned as it was before the change that is in progress, and held.
    M(lockstep.vllm.nvidia_driver_preflight) says beforehand whether installing can succeed.
  - An interrupted dpkg is repaired first. Locks of apt are waited for, and their holder is named when they are not freed.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.change
  - lockstep.vllm.fleet.driver
options:
  version:
    description: Full driver version, such as V(550.127.05).
    type: str
    required: true
  state:
    description: Whether the packages are only downloaded, installed, or kept as they are.
    type: str
    choices: [fetched, installed, kept]
    default: installed
  sources_file:
    description: apt's source file for that repository; its list is read anew where apt does not know the driver yet.
    type: path
  tolerate_unrelated:
    description: >-
      Whether the driver counts as installed where apt fails for packages that are no part of it. They are named in a warning
      then. Without it that is a failure.
    type: bool
    default: false
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
  returned: unless O(state=kept)
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
"""

import dataclasses
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
    repository_access,
    transaction,
)
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import install as driver_install
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import packages as driver_packages
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import repository as apt_repository
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import state as driver_state
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import undo as driver_undo
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import evidence_bundle

LOG_LINES = 30


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["fetched", "installed", "kept"], "default": "installed"},
            **transaction.ARGUMENTS,
            "sources_file": {"type": "path"},
            "tolerate_unrelated": {"type": "bool", "default": False},
            "deadline": {"type": "int", "default": 1800},
            "lock_deadline": {"type": "int", "default": 300},
            "run": {"type": "str", "default": "by-hand"},
        },
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
            **Stop(str(failure), failure.next or "less /var/log/apt/term.log").as_result(),
            log="\n".join(failure.log.splitlines()[-LOG_LINES:]),
            evidence=list(evidence.driver(folder, failure.log)),
        )


def apply(module: AnsibleModule) -> None:
    params = module.params
    state = driver_state.driver_state(also=())
    limits = {"deadline": float(params["deadline"]), "lock_deadline": float(params["lock_deadline"])}
    if params["state"] == "kept":
        module.exit_json(changed=keep(module, state, limits))
    if params["source"] in ("nvidia", "mirror") and not params["repository_url"]:
        module.fail_json(msg=f"source is {params['source']} but all of the following are missing: repository_url")
    if params["state"] == "installed" and not module.check_mode:
        differs = {state["package_version"], state["loaded_version"]} != {params["version"]}
        # Before anything that can fail: from here on the host knows what to go back to.
        begin(params, state, differs)
    work = plan(params, state)
    result = {"plan": as_json(work)}
    if params["state"] == "fetched":
        changed = bool(work.install)
        if changed and not module.check_mode:
            refresh(params, work, limits)
            changed = driver_install.fetch(work, params["version"], **limits)
        module.exit_json(changed=changed, **result)
    pinned = driver_install.current_preferences() == driver_install.preferences(params["version"], work.pins)
    if not module.check_mode:
        if work.install or work.remove:
            refresh(params, work, limits)
        begin(params, state, bool(work.install or work.remove))
        if work.needed or not pinned:
            tolerate = params["tolerate_unrelated"]
            for warning in driver_install.install(work, params["version"], tolerate_unrelated=tolerate, **limits):
                module.warn(warning)
    module.exit_json(changed=work.needed or not pinned, **result)


def plan(params: dict[str, Any], state: driver_state.DriverState) -> driver_install.Plan:
    declared = transaction.Declared.parse(params)
    if declared.repository is not None:  # the role has written what apt, and so we, are let in by
        access = repository_access.installed(declared.repository.url)
        declared = dataclasses.replace(declared, access=access)
    return transaction.plan(declared, state, boot_kernels.read().bootable)


def refresh(params: dict[str, Any], work: driver_install.Plan, limits: dict[str, float]) -> None:
    if params["sources_file"] and work.install and not driver_install.known_to_apt(work):
        driver_install.update(Path(params["sources_file"]), **limits)


def begin(params: dict[str, Any], state: driver_state.DriverState, changes: bool) -> None:
    target = change_record.declared(params)
    record = change_record.parse(records.read(records.DRIVER))
    if changes or change_record.is_changing_to_another(record, target):
        preferences = driver_install.current_preferences()
        before = driver_undo.before(state["packages"], preferences, state["fabric"]["domain"])
        records.write(records.DRIVER, change_record.begin(record, target, records.now(), before))


def keep(module: AnsibleModule, state: driver_state.DriverState, limits: dict[str, float]) -> bool:
    """Pin and hold the driver that is installed, which is where the change in progress goes back to."""
    target = change_record.declared(module.params)
    record = change_record.parse(records.read(records.DRIVER))
    found = change_record.found_before(record)
    needed = driver_undo.undo(target, found, state, driver_install.current_preferences())
    if module.check_mode:
        return bool(needed)
    records.write(records.DRIVER, change_record.begin(record, target, records.now()))
    if driver_undo.UndoStep.REPAIR in needed:
        driver_install.repair(**limits)
    changed = driver_install.keep(target["version"], found["preferences"] if found else None, **limits)
    return changed or driver_undo.UndoStep.REPAIR in needed


if __name__ == "__main__":
    main()
