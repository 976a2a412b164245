"""Facts about the world, kept as data: rows of ``data/<name>.yml``, or of their JSON copy on a host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import records

CHECKOUT = Path(__file__).resolve().parents[3] / "data"


def read(name: str) -> list[Any]:
    """The rows of the table ``name``; whoever reads it has their type. From the checkout where there is one, else from
    ``/opt/lockstep/share``.

    Raises:
        FileNotFoundError: neither place has it; on a host, gpu_host puts it there.
    """
    source = CHECKOUT / f"{name}.yml"
    if source.exists():
        import yaml

        rows: list[Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
    else:
        rows = json.loads((records.SHARE / f"{name}.json").read_text(encoding="utf-8"))
    return rows
