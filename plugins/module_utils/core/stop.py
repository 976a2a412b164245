"""Why something stops: the message for people, and the next command as a field for programs."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Stop:
    """Why something failed or must not begin.

    Attributes:
        cause: what and where; one line or several.
        next: the next command to type; empty where none is known.
        where: host or replica, where ``cause`` does not name it: what is true of many is then shown once, with their names.
        detail: what differs from host to host, such as an error with its address.
    """

    cause: str
    next: str = ""
    where: str = ""
    detail: str = ""

    @classmethod
    def of(cls, error: Exception, next: str = "") -> Stop:
        """Why ``error`` stops its caller; ``next`` counts where the error names no command itself."""
        named = getattr(error, "stop", None)  # of a StopError
        return named if isinstance(named, Stop) and named.next else cls(str(error), next)

    def __str__(self) -> str:
        cause = f"{self.where}: {self.cause}" if self.where else self.cause
        cause = f"{cause} ({self.detail})" if self.detail else cause
        if not self.next:
            return cause
        between = "\n" if "\n" in cause else ". "
        return f"{cause}{between}Next: {self.next}"

    def as_result(self) -> dict[str, str]:
        """What a module or an action fails with."""
        return {"msg": str(self), **({"next": self.next} if self.next else {})}
