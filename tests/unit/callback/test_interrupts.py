from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.callback import interrupts


@pytest.mark.parametrize(("version", "installed"), [("2.19.4", True), ("2.21.5", True), ("2.99.0", False)])
def test_handlers_are_installed_for_versions_that_they_suit(
    monkeypatch: pytest.MonkeyPatch, version: str, installed: bool
) -> None:
    calls: list[str] = []
    warnings: list[str] = []
    monkeypatch.setattr(interrupts, "__version__", version)
    monkeypatch.setattr(interrupts.signals, "install_signal_handlers", lambda: calls.append("installed"))
    callback = interrupts.CallbackModule()
    monkeypatch.setattr(callback._display, "warning", warnings.append)
    callback.v2_playbook_on_start(None)
    assert bool(calls) == installed
    assert bool(warnings) != installed
    assert all("2.19 to before 2.22" in warning for warning in warnings)
