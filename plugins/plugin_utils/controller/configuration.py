"""What a run from the installed collection lacks of the configuration that a checkout brings along (``ansible.cfg``)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import invocation, settings

EXAMPLE = Path("docs/how-to/ansible.cfg")
CALLBACKS = {
    "lockstep.vllm.rollout": "no journal and no report of this run are kept",
    "lockstep.vllm.interrupts": "a ctrl-C may be lost",
    "lockstep.vllm.whole_replicas": "diagnose.yml and verify.yml refuse a part of a replica",
}


def lacking(playbook: str, enabled: Collection[str]) -> Iterator[str]:
    """Warnings for the plan of a run that was started by ``playbook``, with these callbacks enabled.

    A checkout's playbooks need none: its ``ansible.cfg`` is there.
    """
    if not playbook.startswith(invocation.COLLECTION):
        return
    missing = [what for name, what in CALLBACKS.items() if name not in enabled]
    if missing:
        cause = f"{', and '.join(missing)}: there is no ansible.cfg that enables {' and '.join(CALLBACKS)}"
        yield f"{cause}. Next: cp {settings.ROOT / EXAMPLE} ."
