#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: host_probe
short_description: Read all that Lockstep needs to know about a host, in one read-only call
description:
  - Returns the host's operating system, boot, driver in full, GPUs, Ray, vLLM and Python versions, units, stamps and
    quarantine. Never imports torch, Ray or CUDA, and a driver that hangs becomes a finding.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.read_only
"""

EXAMPLES = r"""
- name: Probe this host
  lockstep.vllm.host_probe:
  register: host_state
"""

RETURN = r"""
state:
  description: >-
    C(os), C(boot), C(driver), C(runtime), C(fingerprint), C(fingerprint_digest), C(units), C(stamps), C(quarantine),
    C(engine), C(manifest), C(disk_free_mib), C(networks), C(machine) and,
    where Lockstep has configured HAProxy, C(router).
  returned: always
  type: dict
admission:
  description: Whether the host may join Ray as it is now (C(allowed)), and why or why not (C(reason)).
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.admission import condition
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import state as driver_state
from ansible_collections.lockstep.vllm.plugins.module_utils.host import probe as host_probe


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    decision = condition.decide_here("host")
    module.exit_json(
        changed=False,
        state=host_probe.collect({"driver_also": driver_state.COSTLY}),
        admission={"allowed": decision.allowed, "reason": decision.reason},
    )


if __name__ == "__main__":
    main()
