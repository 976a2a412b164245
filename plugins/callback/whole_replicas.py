# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = """
name: whole_replicas
type: aggregate
short_description: Have diagnose.yml and verify.yml look at whole replicas where --limit names a part
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
description:
  - Gates between hosts need all hosts of a replica. Where C(--limit) names some of them, the run is about all of them, and one
    line says so.
  - Only the collection's own C(diagnose.yml) and C(verify.yml), and only while these change nothing
    (C(diagnose_disturb), C(verify_disturb)). All other playbooks refuse such a limit, as these two do without this plugin.
  - A callback, as Ansible chooses the hosts of a play before any other plugin of it is called.
requirements:
  - enabled in the C(callbacks_enabled) setting
"""

from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import topology
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals, whole_replicas

_PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"


class CallbackModule(CallbackBase):
    """Widens the limit when a playbook starts: no host of it has been chosen then."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "lockstep.vllm.whole_replicas"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: Any) -> None:
        limit = context.CLIARGS.get("subset")
        if not limit or ansible_internals.unsupported():
            return
        inventory = ansible_internals.inventory_of(playbook)
        inventory.subset(limit)  # as another playbook of the same command may have had it widened
        name = ansible_internals.playbook_name(playbook)
        if name not in whole_replicas.LOOKED_AT or ansible_internals.playbook_folder(playbook) != _PLAYBOOKS:
            return
        members = inventory.get_groups_dict()
        root = inventory.groups.get(topology.ROOT)
        replicas = {group.name: members[group.name] for group in (root.child_groups if root else ())}
        asked = [host.name for host in inventory.get_hosts()]
        hosts, line = whole_replicas.widened(replicas, asked)
        if hosts and not ansible_internals.may_be_true(playbook, f"{name}_disturb", asked):
            inventory.subset(",".join(hosts))
            self._display.display(line)
