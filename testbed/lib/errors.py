"""The one error type of the testbed."""


class TestbedError(Exception):
    """Something that a person has to read: one line that names the cause and, where there is one, the next command."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class UsageError(TestbedError):
    """Bad input; the command line ends with status 2."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=2)
