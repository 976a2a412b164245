"""The driver against the CUDA release of the serving environment, beyond what packages.combination_refusal refuses. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from .versions import version_key


class _Major(TypedDict):
    cuda: str
    driver: str
    source: str
    confidence: str


class CudaRelease(_Major, total=False):
    """One row of data/cuda_minimum_driver.yml: the least driver of a major version, and by release the one it came with."""

    shipped_with: Mapping[str, str]
    shipped_source: str


def warning(driver: str | None, torch_cuda: str | None, rows: Sequence[CudaRelease]) -> str | None:
    """Why some kernels of torch built for CUDA ``torch_cuda`` (``12.8``) may not run on ``driver``; None when all do.

    A driver older than the one that a CUDA release came with runs its programs, but cannot compile PTX that it made. ``rows``
    are those of data/cuda_minimum_driver.yml.
    """
    if not driver or not torch_cuda:
        return None
    release = ".".join(torch_cuda.split(".")[:2])
    row = next((row for row in rows if release in row.get("shipped_with", {})), None)
    shipped = str(row["shipped_with"][release]) if row else None
    if row is None or shipped is None or version_key(driver) >= version_key(shipped):
        return None
    return (
        f"driver {driver} is older than {shipped}, which CUDA {release} of the serving environment came with: kernels that "
        f'come as PTX cannot be compiled ("the provided PTX was compiled with an unsupported toolchain"; '
        f"{row['shipped_source']}). Set "
        f"nvidia_driver_version to {shipped} or newer, or serving_runtime_lock to an environment built for an older CUDA"
    )
