#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: service_load
short_description: Have a running service load its files, also those that an earlier run has written
description:
  - In place of a handler. What a run that dies leaves to its handlers stays undone for good, as the next run finds the file as
    it should be.
  - Records in C(/var/lib/lockstep/loaded/) which files were loaded last. Loads when any was written since, unless the service
    was started after that.
version_added: 0.2.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.record
options:
  unit:
    description: The unit, with its suffix. Nothing is done where it does not run.
    type: str
    required: true
  files:
    description: What it reads, as absolute paths; of a folder every file of Python in it.
    type: list
    elements: str
    required: true
  by:
    description: How it loads them.
    type: str
    choices: [reload, restart]
    default: reload
"""

EXAMPLES = r"""
- name: Load HAProxy configuration
  lockstep.vllm.service_load:
    unit: haproxy.service
    files: [/etc/haproxy/haproxy.cfg]
"""

RETURN = r"""
next:
  description: The next command to type.
  returned: on failure
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.core import loaded, systemd
from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import run_command
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop

SYSTEMD = Path("/run/systemd/system")
"""There where systemd was booted (sd_booted(3)); in an image that is being built it was not, and nothing is loaded."""
COMMAND_DEADLINE = 60.0
_ACTIVE = ("active", "reloading")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "str", "required": True},
            "by": {"type": "str", "choices": ["reload", "restart"], "default": "reload"},
        },
        supports_check_mode=True,
    )
    unit, files, by = module.params["unit"], module.params["files"], module.params["by"]
    if module.check_mode and not SYSTEMD.is_dir():
        module.exit_json(changed=False)
    try:
        known = systemd.show([unit], ["ActiveState", "ExecMainStartTimestamp", "ActiveEnterTimestamp"])[unit]
        if known.get("ActiveState") not in _ACTIVE:
            module.exit_json(changed=False)
        since = known.get("ExecMainStartTimestamp") or known.get("ActiveEnterTimestamp") or ""
        started = since.lstrip("@")
        due = loaded.is_due(loaded.read(unit), files, int(started) if started.isdigit() else None)
        if module.check_mode:
            module.exit_json(changed=due)
        as_of = loaded.signature(files)  # first: what is written meanwhile is loaded by the next run
        if due:
            done = run_command(["systemctl", by, unit], COMMAND_DEADLINE)
            if not done.ok:
                reason = "no answer" if done.timed_out else done.stderr.strip()
                raise OSError(f"systemctl {by} {unit}: {reason}")
        loaded.write(unit, files, as_of)
    except OSError as error:
        module.fail_json(**Stop.of(error, f"journalctl -u {unit}").as_result())
    module.exit_json(changed=due)


if __name__ == "__main__":
    main()
