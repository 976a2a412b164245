"""One thing that the driver gate found wrong."""

from __future__ import annotations

import dataclasses
from typing import Literal

Severity = Literal["fail", "warn"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """Its code, the cause, and what to do."""

    code: str
    cause: str
    remediation: str
    severity: Severity = "fail"


def verify_again(host: str) -> str:
    return f"ansible-playbook playbooks/verify.yml --limit {host}"
