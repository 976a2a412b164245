"""What the supervisor reports: engine.json, its lines in the journal, and its status in systemd."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from ..core import records
from ..core.codes import as_json
from ..core.systemd import notify
from .record import EngineState
from .states import Phase


class Reporter:
    """The engine's state, written anew at every change."""

    def __init__(self) -> None:
        self.state = EngineState(Phase.WAITING, since=records.now(), pid=os.getpid())

    def enter(self, phase: Phase, reason: str) -> None:
        """A phase begins."""
        self._announce(phase, reason)
        self.update(phase=phase, reason=reason, since=records.now(), ready=False)

    def wait(self, reason: str) -> None:
        """Wait, or go on waiting, for this reason: one wait may consider several layouts in turn."""
        if self.state.phase is Phase.WAITING:
            self.explain(reason)
        else:
            self.enter(Phase.WAITING, reason)

    def explain(self, reason: str) -> None:
        """The phase goes on, for this reason."""
        if reason != self.state.reason:
            self._announce(self.state.phase, reason)
            self.update(reason=reason)

    def update(self, **changes: Any) -> None:
        """Change fields of EngineState."""
        self.state = dataclasses.replace(self.state, **changes)
        records.write(records.ENGINE_STATE, as_json(self.state))

    def _announce(self, phase: Phase, reason: str) -> None:
        print(f"{phase}: {reason}", flush=True)
        notify(status=f"{phase}: {reason}")
