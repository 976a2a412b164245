"""Why something stops: the message for people, and the next command as a field for programs."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Stop:
    """Why something failed or must not begin.

    Attributes:
        cause: what and where; one line or several.
        next: the next command to type; empty where none is known.
    """

    cause: str
    next: str = ""

    @classmethod
    def of(cls, error: Exception, next: str = "") -> Stop:
        """Why ``error`` stops its caller; ``next`` counts where the error names no command itself."""
        return error.stop if isinstance(error, StopError) and error.stop.next else cls(str(error), next)

    def __str__(self) -> str:
        if not self.next:
            return self.cause
        between = "\n" if "\n" in self.cause else ". "
        return f"{self.cause}{between}Next: {self.next}"

    def as_result(self) -> dict[str, str]:
        """What a module or an action fails with."""
        return {"msg": str(self), **({"next": self.next} if self.next else {})}


class StopError(Exception):
    """Base of the errors that may name the next command, as a field."""

    def __init__(self, cause: str, next: str = "") -> None:
        super().__init__(cause, next)
        self.stop = Stop(cause, next)

    def __str__(self) -> str:
        return str(self.stop)
