#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: router_replica
short_description: Take a replica out of a router's rotation, or put it back
description:
  - Speaks to HAProxy's runtime socket; nothing is reloaded. What is asked for is kept over reloads and restarts.
  - V(drain) lets requests that run go on, sends no new ones and waits until none runs or the deadline is over.
  - V(ready) puts the replica back and waits until the router's own check finds it ready.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
options:
  replica:
    description: Name of the replica.
    type: str
    required: true
  state:
    description: What is wanted.
    type: str
    choices: [ready, drain]
    required: true
  deadline:
    description: Seconds that the wait may take.
    type: float
    default: 60
  socket:
    description: HAProxy's runtime socket, of level admin.
    type: path
    default: /run/haproxy/admin.sock
  state_file:
    description: Where HAProxy reads at its start what was asked for.
    type: path
    default: /var/lib/haproxy/lockstep-servers
attributes:
  check_mode:
    support: full
    description: Says whether the replica's state would change.
  diff_mode:
    support: none
    description: There is nothing to compare.
"""

EXAMPLES = r"""
- name: Router sends replica_a no more requests
  lockstep.vllm.router_replica:
    replica: replica_a
    state: drain
    deadline: 120
"""

RETURN = r"""
status:
  description: What HAProxy says of the replica at the end, such as V(UP), V(DOWN) or V(DRAIN).
  returned: success
  type: str
sessions:
  description: Requests that run on it at the end; more than zero when the deadline of a drain was over first.
  returned: success
  type: int
seconds:
  description: How long the module waited.
  returned: success
  type: float
"""

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils import haproxy

NEXT = "Next: journalctl -u haproxy"


def apply(module: AnsibleModule, router: haproxy.Router) -> None:
    name, wish, deadline = module.params["replica"], module.params["state"], module.params["deadline"]
    began = time.monotonic()
    server = router.server(name)
    changed = server.draining != (wish == "drain")
    if not module.check_mode:
        if changed:
            router.set(name, wish)
        server = router.wait_idle(name, deadline) if wish == "drain" else router.wait_up(name, deadline)
    if wish == "ready" and not server.up and not module.check_mode:
        module.fail_json(
            msg=f"the router does not find {name} ready within {deadline:.0f} s: it is {server.status} ({server.check}). {NEXT}"
        )
    if server.sessions and wish == "drain" and not module.check_mode:
        module.warn(f"{server.sessions} requests still run on {name} after {deadline:.0f} s")
    seconds = round(time.monotonic() - began, 1)
    module.exit_json(changed=changed, status=server.status, sessions=server.sessions, seconds=seconds)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "replica": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["ready", "drain"], "required": True},
            "deadline": {"type": "float", "default": 60},
            "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
            "state_file": {"type": "path", "default": "/var/lib/haproxy/lockstep-servers"},
        },
        supports_check_mode=True,
    )
    try:
        apply(module, haproxy.Router(Path(module.params["socket"]), Path(module.params["state_file"])))
    except (haproxy.RouterError, OSError) as error:
        module.fail_json(msg=f"{error}. {NEXT}")


if __name__ == "__main__":
    main()
