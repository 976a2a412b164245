"""What the parts of the driver gate yield."""

from __future__ import annotations

import dataclasses
from typing import Literal

Severity = Literal["fail", "warn"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong: its code, the cause, and what to do."""

    code: str
    cause: str
    remediation: str
    severity: Severity = "fail"
