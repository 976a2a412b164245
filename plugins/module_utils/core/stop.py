"""Why something stops: the message for people, and the next command as a field for programs."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Stop:
    """Why something failed or must not begin.

    Attributes:
        cause: what and where; one line or several.
        next: the next command to type.
    """

    cause: str
    next: str

    def __str__(self) -> str:
        between = "\n" if "\n" in self.cause else ". "
        return f"{self.cause}{between}Next: {self.next}"

    def as_result(self) -> dict[str, str]:
        """What a module or an action fails with."""
        return {"msg": str(self), "next": self.next}
