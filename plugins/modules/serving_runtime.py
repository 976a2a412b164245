#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: serving_runtime
short_description: Install the locked Python environment with Ray and vLLM on a host
description:
  - Builds C(/opt/lockstep/runtime/<digest of the lock>) with uv, imports torch, Ray and vLLM in it, and only then points
    C(/opt/lockstep/runtime/current) to it. A run that is killed leaves the former environment in use.
  - The environment before stays, to roll back to; older ones are removed unless a process still uses them.
  - Needs uv at C(/opt/lockstep/bin/uv).
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.runtime_lock
options:
  wheelhouse:
    description: Folder on the host, or URL, with all wheels. With it, no index is asked.
    type: str
  index_url:
    description: Package index instead of PyPI. It may hold a password, and is in no log and in no argument of a process.
    type: str
  deadline:
    description: Seconds that the installation may take.
    type: float
    default: 3600
attributes:
  check_mode:
    support: full
    description: Reports whether the environment would change and builds nothing.
  diff_mode:
    support: full
    description: Shows the versions before, and after a change those that are in use then.
"""

EXAMPLES = r"""
- name: Install serving environment
  lockstep.vllm.serving_runtime:
    lock: /opt/lockstep/share/serving_runtime.lock
    wheelhouse: https://mirror.example.org/wheels/
"""

RETURN = r"""
digest:
  description: Of the lock, and the name of the environment's folder.
  returned: success
  type: str
before:
  description: Digest of the environment that was in use.
  returned: success
  type: str
built:
  description: Whether the environment was (or would be) built anew.
  returned: success
  type: bool
removed:
  description: Digests of environments that were (or would be) removed.
  returned: success
  type: list
  elements: str
runtime:
  description: Versions in the environment that is in use now.
  returned: success
  type: dict
"""

import urllib.parse
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.host import previous_settings
from ansible_collections.lockstep.vllm.plugins.module_utils.runtime import install as runtime_install
from ansible_collections.lockstep.vllm.plugins.module_utils.runtime import state as runtime_state


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "lock": {"type": "path", "required": True},
            "extra_requirements": {"type": "list", "elements": "str", "default": []},
            "python": {"type": "str", "default": "python3"},
            "wheelhouse": {"type": "str"},
            "index_url": {"type": "str", "no_log": True},
            "deadline": {"type": "float", "default": 3600.0},
        },
        mutually_exclusive=[["wheelhouse", "index_url"]],
        supports_check_mode=True,
    )
    params = module.params
    for url in (params["wheelhouse"], params["index_url"]):
        if password := urllib.parse.urlsplit(url or "").password:
            module.no_log_values.add(password)  # in what is shown of the invocation, and in whatever uv says
    environment = runtime_install.Environment(
        lock=Path(params["lock"]),
        extra=tuple(params["extra_requirements"]),
        python=params["python"],
        wheelhouse=params["wheelhouse"],
        index_url=params["index_url"],
        deadline=params["deadline"],
    )
    before = runtime_state.state()
    try:
        previous = previous_settings.environment_to_keep()
        done = runtime_install.install(environment, check=module.check_mode, previous=previous)
    except (runtime_install.InstallError, records.RecordError) as error:
        module.fail_json(**error.stop.as_result())
    module.exit_json(
        changed=done.changed,
        digest=done.digest,
        before=done.before,
        built=done.built,
        removed=list(done.removed),
        runtime=dict(done.state),
        diff={"before": before, "after": {**done.state, "lock": done.digest}},
    )


if __name__ == "__main__":
    main()
