# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = """
name: interrupts
type: aggregate
short_description: End a run and all its workers at the first ctrl-C
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
description:
  - Replaces ansible-core's handling of interrupts in the controller's process, which loses a ctrl-C that falls into the
    start of a worker (U(https://github.com/ansible/ansible/issues/86946)). Then a rollout goes on as if nobody had asked it
    to end, or its controller ends before a worker's task has.
  - A callback, as callbacks alone run in that process. It shows nothing.
  - With a version of ansible-core that it does not know, it changes nothing and says so.
requirements:
  - enabled in the C(callbacks_enabled) setting
"""

from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible.release import __version__

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import signals


class CallbackModule(CallbackBase):
    """Installs the handlers when a playbook starts: then Ansible has installed its own, which they call."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "lockstep.vllm.interrupts"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: Any) -> None:
        if signals.supports(__version__):
            signals.install_signal_handlers()
        else:
            known = " to before ".join(f"{major}.{minor}" for major, minor in signals.ANSIBLE_CORE)
            self._display.warning(
                f"lockstep.vllm.interrupts: ansible-core {__version__} is not one of {known}; a ctrl-C that falls into the "
                "start of a worker may be lost. Next: press it again"
            )
