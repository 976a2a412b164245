"""How much a host may answer to a task, whatever its module or action: one that never ends would fill this machine's memory.

Ansible reads an answer whole, parses it in a worker and hands it to the controller's process: of 4 MiB of JSON that is made to
hurt, that is 620 and 330 MiB of memory, of 16 MiB 2.0 and 1.3 GiB.
"""

from __future__ import annotations

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals, stops


def limit(mib: int) -> None:
    """Cut off a host that answers more in one call of its connection, of which a task makes a few; its task fails."""
    ansible_internals.limit_answers(mib << 20, _too_much)


def _too_much(host: str, limit: int) -> Exception:
    cause = f"{host} answered a task with more than {limit >> 20} MiB (LOCKSTEP_ANSWER_LIMIT), and was cut off"
    failure: Exception = stops.fail(Stop(cause, "ansible-playbook playbooks/status.yml"))
    return failure
