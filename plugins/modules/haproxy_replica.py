#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_replica
short_description: Drain or enable a replica in HAProxy
description:
  - Speaks to HAProxy's runtime socket; nothing is reloaded. A drained replica stays drained over reloads and restarts.
  - V(drain) lets requests that run go on, sends no new ones and waits until none runs or the deadline is over.
  - V(counted) only reads how many requests and errors the router has counted; with O(since) it fails where errors became more
    frequent since then.
  - V(ready) enables the replica and waits until the router's own check finds it ready.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.change
options:
  replica:
    description: Name of the replica.
    type: str
    required: true
  state:
    description: The desired state.
    type: str
    choices: [ready, drain, counted]
    required: true
  deadline:
    description: Seconds that the wait may take.
    type: float
    default: 60
  since:
    description: What was counted at an earlier moment, with C(requests) and C(errors). Only with O(state=counted).
    type: dict
  error_share:
    description: By how much the share of errors may have grown since then.
    type: float
    default: 0.02
"""

EXAMPLES = r"""
- name: Drain replica_a in HAProxy
  lockstep.vllm.haproxy_replica:
    replica: replica_a
    state: drain
    deadline: 120
"""

RETURN = r"""
status:
  description: HAProxy's status of the replica at the end, such as V(UP), V(DOWN) or V(DRAIN).
  returned: success, unless O(state=counted)
  type: str
sessions:
  description: Requests that run on it at the end; more than zero when the deadline of a drain was over first.
  returned: success, unless O(state=counted)
  type: int
seconds:
  description: How long the module waited.
  returned: success, unless O(state=counted)
  type: float
counts:
  description: C(requests) and C(errors) of the replica since HAProxy started.
  returned: with O(state=counted)
  type: dict
"""

import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils import haproxy
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop

NEXT = "journalctl -u haproxy"


def apply(module: AnsibleModule, router: haproxy.Router) -> None:
    name, state, deadline = module.params["replica"], module.params["state"], module.params["deadline"]
    began = time.monotonic()
    server = router.server(name)
    changed = server.draining != (state == "drain")
    if not module.check_mode:
        if changed:
            router.set(name, state)
        server = router.wait_idle(name, deadline) if state == "drain" else router.wait_up(name, deadline)
    if state == "ready" and not server.up and not module.check_mode:
        cause = f"{name} is not ready in HAProxy within {deadline:.0f} s: {server.status} ({server.check})"
        module.fail_json(**Stop(cause, NEXT).as_result())
    if server.sessions and state == "drain" and not module.check_mode:
        module.warn(f"{server.sessions} requests still run on {name} after {deadline:.0f} s")
    seconds = round(time.monotonic() - began, 1)
    module.exit_json(changed=changed, status=server.status, sessions=server.sessions, seconds=seconds)


def count(module: AnsibleModule, router: haproxy.Router) -> None:
    name, since = module.params["replica"], module.params["since"]
    counts = router.counts(name)
    if since is None:
        module.exit_json(changed=False, counts=counts)
    summary, bad = haproxy.worse({key: int(since[key]) for key in counts}, counts, module.params["error_share"])
    event = {"event": "note", "text": f"{name}: {summary}"}
    if bad:
        stop = Stop(f"{name} answers worse than before: {summary}", NEXT)
        module.fail_json(**stop.as_result(), counts=counts, lockstep_event=event)
    module.exit_json(changed=False, counts=counts, lockstep_event=event)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "replica": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["ready", "drain", "counted"], "required": True},
            "deadline": {"type": "float", "default": 60},
            "since": {"type": "dict"},
            "error_share": {"type": "float", "default": 0.02},
        },
        supports_check_mode=True,
    )
    try:
        work = count if module.params["state"] == "counted" else apply
        work(module, haproxy.Router())
    except (haproxy.RouterError, OSError) as error:
        module.fail_json(**Stop.of(error, NEXT).as_result())


if __name__ == "__main__":
    main()
