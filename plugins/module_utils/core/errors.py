"""The base of the errors that may name the next command.

Every probe brings this file to every host, so it loads what it says of itself (``Stop``) when that is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .stop import Stop


class StopError(Exception):
    """Base of the errors that may name the next command, as a field."""

    def __init__(self, cause: str, next: str = "") -> None:
        super().__init__(cause, next)

    @property
    def stop(self) -> Stop:
        """The cause and the next command."""
        from .stop import Stop

        return Stop(*self.args)

    def __str__(self) -> str:
        return str(self.stop)
