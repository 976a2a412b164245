#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_driver_preflight
short_description: Find out whether a host's packages let a driver be installed
description:
  - Looks for packages that dpkg left half-way, unmet dependencies, another description of the same repository, a
    repository or key that apt does not accept, missing kernel headers or prebuilt modules for a kernel that may boot next,
    Secure Boot, and cards that the kernel modules do not run; and simulates the very transaction.
  - Writes no file of the host. What apt has to write goes to a folder of its own below C(/run), which is removed.
  - Waits for apt's locks, saying every ten seconds who holds them, and fails where they are not freed.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.read_only
  - lockstep.vllm.fleet.driver
options:
  checks:
    description: >-
      What is looked at: V(locks) (are they free), V(sources) (descriptions of the repository, no apt is run),
      V(packages) (all of it).
    type: list
    elements: str
    choices: [locks, sources, packages]
    default: [locks, packages]
  version:
    description: Full driver version, such as V(550.127.05). Needed for O(checks=packages).
    type: str
  keyring_url:
    description: Where its key is.
    type: str
  keyring_sha256:
    description: SHA-256 of the key.
    type: str
  keyring_fingerprint:
    description: Fingerprint of the key, in place of its SHA-256 or beside it.
    type: str
  repository_username:
    description: User of the repository's basic authentication.
    type: str
  repository_password:
    description: Its password.
    type: str
  repository_client_certificate:
    description: The certificate that the repository knows this host by, as PEM text.
    type: str
  repository_client_key:
    description: Its key, as PEM text.
    type: str
  deadline:
    description: Seconds to wait for apt's locks.
    type: float
    default: 300
"""

EXAMPLES = r"""
- name: Check packages before a driver is installed
  lockstep.vllm.nvidia_driver_preflight:
    version: 550.127.05
    repository_url: https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2204/x86_64
    keyring_url: https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2204/x86_64/3bf863cc.pub
    keyring_fingerprint: EB693B3035CD5710E231E123A4B469963BF863CC
"""

RETURN = r"""
code:
  description: V(ready), V(deadline) (apt's locks were not freed) or V(refused).
  returned: always
  type: str
reason:
  description: Why it is not ready; empty where it is.
  returned: always
  type: str
problems:
  description: Every problem with its C(kind), C(cause), the command C(fix) that repairs it, and whether it only C(warns).
  returned: always
  type: list
  elements: dict
keyring_sha256:
  description: SHA-256 of the key that is the one meant, to download it by. Not with O(source=ubuntu) and O(source=debian).
  returned: when ready
  type: str
  sample: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
next:
  description: The command that repairs the first problem, on the host.
  returned: when refused and one is known
  type: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import apt_lock, keyring, preflight
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.package_problems import Problem
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.transaction import ARGUMENTS, Declared


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "checks": {
                "type": "list",
                "elements": "str",
                "choices": ["locks", "sources", "packages"],
                "default": ["locks", "packages"],
            },
            "version": {"type": "str"},
            **ARGUMENTS,
            "keyring_url": {"type": "str", "no_log": False},
            "keyring_sha256": {"type": "str", "no_log": False},
            "keyring_fingerprint": {"type": "str", "no_log": False},
            "repository_username": {"type": "str"},
            "repository_password": {"type": "str", "no_log": True},
            "repository_client_certificate": {"type": "str"},
            "repository_client_key": {"type": "str", "no_log": True},
            "deadline": {"type": "float", "default": 300.0},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        if "locks" in params["checks"]:
            apt_lock.wait(params["deadline"])
    except apt_lock.Locked as error:
        reason = f"apt is in use: {error.held}"
        module.fail_json(**Stop(reason).as_result(), code="deadline", reason=reason, problems=[])
    declared = Declared.parse(params)
    found = preflight.problems(declared) if "packages" in params["checks"] else []
    found = found or (preflight.sources(declared) if "sources" in params["checks"] else [])
    digest = ""
    if declared.has_repository and not any(not problem.warns for problem in found):
        digest, wrong = keyring.sha256(declared, Path(preflight.keyring_path(declared)))
        found += keyring.missing(declared) or wrong
    finish(module, found, digest)


def finish(module: AnsibleModule, found: list[Problem], digest: str) -> None:
    for problem in found:
        if problem.warns:
            module.warn(problem.cause)
    refused = [problem for problem in found if not problem.warns]
    result: dict[str, Any] = {"problems": as_json(found), "reason": "; ".join(problem.cause for problem in refused)}
    if refused:
        fix = next((problem.fix for problem in refused if problem.fix), "")
        module.fail_json(**Stop(result["reason"], fix).as_result(), code="refused", **result)
    module.exit_json(changed=False, code="ready", **result, **({"keyring_sha256": digest} if digest else {}))


if __name__ == "__main__":
    main()
