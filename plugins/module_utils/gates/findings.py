"""What the parts of a gate yield."""

from __future__ import annotations

import dataclasses
from typing import Literal

from .codes import Code

Severity = Literal["fail", "warn"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong: its code, the cause, and what to do."""

    code: str
    cause: str
    remediation: str
    severity: Severity = "fail"


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing wrong between hosts: its code, who is to blame, the cause, what to type, the pair where it takes two."""

    code: Code
    host: str
    cause: str
    next: str
    pair: tuple[str, str] | None = None
