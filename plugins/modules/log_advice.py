#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: log_advice
short_description: Turn known lines of vLLM's and Ray's logs into findings with a remediation
description:
  - Reads logs on the host with the patterns in C(/opt/lockstep/share/log_advice.json), which come from
    C(data/log_advice.yml). Each names where it is from.
  - Also returns why an engine ended, from its log.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.read_only
options:
  paths:
    description: Logs to read; may hold wildcards. One that isn't there is left out.
    type: list
    elements: str
    default:
      - /var/lib/lockstep/engine/engine.log
      - /var/lib/lockstep/ray/session_latest/logs/raylet.err
      - /var/lib/lockstep/ray/session_latest/logs/worker-*.err
      - /var/lib/lockstep/ray/session_latest/logs/worker-*.out
  patterns:
    description: The table of patterns.
    type: path
    default: /opt/lockstep/share/log_advice.json
  last_bytes:
    description: How much of each log is read, from its end.
    type: int
    default: 4194304
"""

EXAMPLES = r"""
- name: Read logs of the engine and of Ray
  lockstep.vllm.log_advice:
  register: log_advice
"""

RETURN = r"""
findings:
  description: Known lines that occurred, worst first.
  returned: always
  type: list
  elements: dict
  contains:
    id:
      description: Name of the pattern.
      type: str
    level:
      description: V(error), V(warning) or V(info).
      type: str
    finding:
      description: What the line means.
      type: str
    remediation:
      description: What to do about it.
      type: str
    source:
      description: Where the text or its meaning is from.
      type: str
    line:
      description: Its first occurrence.
      type: str
    count:
      description: How often it occurred.
      type: int
reason:
  description: The exception at the root of the engine's end, from the first log; its last line where there is none.
  returned: always
  type: str
read:
  description: The logs that were read.
  returned: always
  type: list
  elements: str
"""

import glob
import itertools
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.core import causes, records, untrusted
from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import log_advice

MOST_LOGS = 200


def tail(path: str, size: int) -> list[str] | None:
    """The last lines of a log, which the user who serves writes; None where it is no file that root may read for him."""
    within = records.STATE if Path(path).is_relative_to(records.STATE) else None
    try:
        return untrusted.end_of_file(Path(path), size, within).decode("utf-8", "replace").splitlines()
    except OSError:
        return None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {
                "type": "list",
                "elements": "str",
                "default": [
                    "/var/lib/lockstep/engine/engine.log",
                    "/var/lib/lockstep/ray/session_latest/logs/raylet.err",
                    "/var/lib/lockstep/ray/session_latest/logs/worker-*.err",
                    "/var/lib/lockstep/ray/session_latest/logs/worker-*.out",
                ],
            },
            "patterns": {"type": "path", "default": "/opt/lockstep/share/log_advice.json"},
            "last_bytes": {"type": "int", "default": 4 << 20},
        },
        supports_check_mode=True,
    )
    try:
        known = log_advice.load(Path(module.params["patterns"]))
    except (ValueError, OSError) as error:
        module.fail_json(msg=f"{module.params['patterns']}: {error}")
    if not known:
        missing = Stop(f"{module.params['patterns']} is not there", "ansible-playbook playbooks/site.yml")
        module.fail_json(**missing.as_result())
    paths = itertools.chain.from_iterable(
        sorted(itertools.islice(glob.iglob(pattern), MOST_LOGS)) for pattern in module.params["paths"]
    )
    found = {path: lines for path in paths if (lines := tail(path, module.params["last_bytes"])) is not None}
    read, logs = list(found), list(found.values())
    findings = log_advice.read((line for log in logs for line in log), known)
    reason = causes.of_program(logs[0]).text if logs else ""
    module.exit_json(changed=False, findings=as_json(findings), reason=reason, read=read)


if __name__ == "__main__":
    main()
