"""gpg keys that live as long as a test."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Publisher:
    """Who has a secret key, and the keyring with the public half that readers have."""

    home: Path
    address: str
    keyring: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "GNUPGHOME": str(self.home)}

    def gpg(self, *arguments: str | Path) -> bytes:
        return subprocess.run(
            ["gpg", "--batch", "--quiet", *arguments], env=self.environment, check=True, capture_output=True
        ).stdout


@contextmanager
def publisher(folder: Path, address: str) -> Iterator[Publisher]:
    if not shutil.which("gpg"):
        pytest.fail("gpg is missing. Next: apt-get install gnupg (tools/bootstrap does it)")
    # Not under pytest's folder: the agent's socket has a path of at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="gpg", ignore_cleanup_errors=True) as home:
        made = Publisher(Path(home), address, folder / f"{address}.gpg")
        made.gpg("--passphrase", "", "--quick-generate-key", address, "ed25519", "sign", "never")
        made.keyring.write_bytes(made.gpg("--export", address))
        try:
            yield made
        finally:
            subprocess.run(["gpgconf", "--kill", "gpg-agent"], env=made.environment, check=False)
