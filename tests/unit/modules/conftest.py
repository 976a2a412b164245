"""Modules run in the tests' own process: what one warns of must not reach the result of the next."""

from __future__ import annotations

import pytest
from ansible.module_utils.common import warnings


@pytest.fixture(autouse=True)
def no_warnings_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_global_warnings", "_global_deprecations"):
        monkeypatch.setattr(warnings, name, type(getattr(warnings, name))())
