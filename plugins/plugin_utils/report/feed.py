"""Who shows a run's events instead of the plain lines of the callback ``rollout``: the stdout callback ``calm``, if in use.

Both are in the controller's own process; where nobody listens, as under AWX and ansible-runner, the lines are shown as ever.
"""

from __future__ import annotations

from typing import Protocol

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.closing import Closing
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.events import Event
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.tracker import Tracker


class Listener(Protocol):
    def follow(self, event: Event, tracker: Tracker) -> None: ...
    def close(self, closing: Closing) -> None: ...


listener: Listener | None = None
