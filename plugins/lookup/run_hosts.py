# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: run_hosts
short_description: The hosts of a play, unless its command line cannot be meant
description:
  - Returns its term, for the keyword C(hosts) of the first play of a playbook. Ansible evaluates that before any task, and
    also when every task is left out.
  - Fails where C(--tags), C(--skip-tags) or C(--start-at-task) leave tasks out. A run is planned as a whole; Ansible itself
    would do nothing, or a part, and exit with 0.
  - Fails on an ansible-core that is not supported.
  - A syntax check (C(--syntax-check)) always passes.
  - Fails where the inventory has no group C(lockstep), as without an inventory; Ansible would skip the play and exit with 0.
  - Fails where C(-e) sets a variable whose name is one of Lockstep's misspelt, which would do nothing.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
options:
  _terms:
    description: The pattern of the hosts.
    required: true
  partial:
    description: Whether tasks may be left out. For playbooks that only look.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Plan the run
  hosts: "{{ lookup('lockstep.vllm.run_hosts', 'all') }}"
  tasks: []
"""

RETURN = r"""
_raw:
  description: The pattern.
  type: list
  elements: str
"""

from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals, command_line

NOT_PARSED = 4
"""What ``ansible-playbook`` exits with where it can't begin."""


class LookupModule(LookupBase):
    """The one place that Ansible evaluates in every run of a play."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        left_out = [] if self.get_option("partial") else ansible_internals.left_out()
        extra = ansible_internals.extra_variables(self._loader)
        if ansible_internals.only_checks_syntax():
            return terms
        refusal = ansible_internals.unsupported() or command_line.refusal(
            left_out, extra, (variables or {}).get("groups", {})
        )
        if refusal is not None:
            # As an AnsibleError it would be wrapped into the keyword's error, with seven lines of the playbook's source.
            Display().error(str(refusal), wrap_text=False)
            raise SystemExit(NOT_PARSED)
        return terms
