"""Where compilers keep what they made on this host for the next start of vLLM: one folder for each serving environment.

Below the state of the user ``lockstep``, and on disk: torch's own place for it is ``/tmp/torchinductor_<user>``, which a reboot
empties and any user of the host may have made first, with code in it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ..core import records
from ..core.systemd import credential

FOLDER = records.STATE / "engine" / "cache"


def environment(runtime: Path = records.RUNTIME, folder: Path = FOLDER) -> dict[str, str]:
    """What tells vLLM, torch and Triton where that is, for the environment in use."""
    own = folder / runtime.resolve().name
    return {
        "VLLM_CACHE_ROOT": str(own / "vllm"),
        "TORCHINDUCTOR_CACHE_DIR": str(own / "inductor"),
        "TRITON_CACHE_DIR": str(own / "triton"),
    }


def hub_environment(cache: str | None = None) -> dict[str, str]:
    """Where models from a hub are kept, and the file with its token: huggingface_hub reads both from the environment."""
    token = credential("hub-token")
    return {**({"HF_HOME": cache} if cache else {}), **({"HF_TOKEN_PATH": str(token)} if token else {})}


def prune(runtime: Path = records.RUNTIME, folder: Path = FOLDER) -> None:
    """Remove what was made for environments that are gone. One that a rollback may go back to is still installed."""
    installed = {path.name for path in runtime.parent.glob("*")}
    for path in folder.glob("*"):
        if path.name not in installed:
            shutil.rmtree(path, ignore_errors=True)
