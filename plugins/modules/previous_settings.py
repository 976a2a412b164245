#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: previous_settings
short_description: Keep the settings that a wave is about to change, take a host back to them, or let go of them
description:
  - Settings are the serving environment in use, and the files, units and manifests of the roles C(serving_runtime), C(ray_node)
    and C(vllm_server). The driver has a record of its own, see M(lockstep.vllm.nvidia_driver_change).
  - They are kept in C(/var/lib/lockstep/previous), which root alone may read, before anything of them is touched. What a run
    that died has kept stays kept, so that its rerun is rolled back to what served, not to what the first one half changed.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.change
options:
  state:
    description: >-
      V(kept) keeps them where something can be gone back to: the replica served, or these settings were accepted last.
      V(restored) takes the host back to what is kept, and starts neither Ray nor vLLM. V(accepted) records that the settings
      in use served, and lets go of what is kept.
    type: str
    choices: [kept, restored, accepted]
    required: true
  run:
    description: The run that is about to change them. Required with O(state=kept).
    type: str
  served:
    description: Whether the replica answered requests when the run was planned.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Keep settings that are about to change
  lockstep.vllm.previous_settings:
    state: kept
    run: "{{ lockstep_run }}"
    served: "{{ lockstep_serving }}"

- name: Restore previous settings
  lockstep.vllm.previous_settings:
    state: restored
"""

RETURN = r"""
roles:
  description: The roles whose settings are kept; empty where there is nothing to go back to.
  returned: with O(state=kept)
  type: list
  elements: str
restored:
  description: What was taken back, for people; empty where nothing differed.
  returned: with O(state=restored)
  type: str
files:
  description: The files that were taken back.
  returned: with O(state=restored)
  type: list
  elements: str
serving_deadline:
  description: Seconds that the engine may take to serve, by the settings in use now; null where there is no engine.
  returned: with O(state=restored)
  type: float
lockstep_event:
  description: What was taken back, for the journal.
  returned: with O(state=restored), where anything was
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import configured
from ansible_collections.lockstep.vllm.plugins.module_utils.host import previous_settings


def restored(check: bool) -> dict[str, Any]:
    """Take the host back, or in check mode tell what would be."""
    change = previous_settings.difference() if check else previous_settings.restore()
    event = {"lockstep_event": {"event": "note", "text": f"rolled back: {change}"}} if str(change) else {}
    return {
        "changed": bool(change),
        "restored": str(change),
        "files": list(change.files),
        "serving_deadline": configured.serving_deadline(),
        **event,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["kept", "restored", "accepted"], "required": True},
            "run": {"type": "str"},
            "served": {"type": "bool", "default": False},
        },
        required_if=[("state", "kept", ["run"])],
        supports_check_mode=True,
    )
    params, check = module.params, module.check_mode
    try:
        if params["state"] == "kept":
            if check:
                module.exit_json(changed=previous_settings.would_keep(params["served"]), roles=[])
            kept, new = previous_settings.keep(params["run"], params["served"])
            module.exit_json(changed=new, roles=kept["roles"] if kept else [])
        if params["state"] == "restored":
            module.exit_json(**restored(check))
        module.exit_json(changed=previous_settings.would_accept() if check else previous_settings.accept())
    except (previous_settings.SettingsError, records.RecordError, OSError) as error:
        module.fail_json(**Stop.of(error, "ansible-playbook playbooks/diagnose.yml").as_result())


if __name__ == "__main__":
    main()
