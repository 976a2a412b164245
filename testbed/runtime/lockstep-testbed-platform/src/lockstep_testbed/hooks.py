"""Faults inside torch and the gates, for every Python of the serving environment.

Imported at the start of each interpreter by a .pth file, so this module does next to nothing: it waits for torch to be
imported and then wraps ``torch.compile`` and the collectives of gloo's process group; and for what stands for a CUDA graph in
a gate on CPU, whose first call is the capture and later calls are replays. vLLM compiles small functions even in eager mode, so
there these hooks stay out of the way and ``worker.py`` does what is needed.
"""

from __future__ import annotations

import sys
from typing import Any

TARGETS = {"torch": "install", "lockstep.gates.ranks.captured": "install_in_graphs"}
"""Modules, and the function of ``torch_faults`` that patches each."""


class _Finder:
    """Meta-path finder that lets the targets be imported as always, then patches them."""

    def __init__(self) -> None:
        self.busy = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in TARGETS or self.busy:
            return None
        import importlib.util

        self.busy = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.busy = False
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            run(module)
            from lockstep_testbed import torch_faults

            getattr(torch_faults, TARGETS[name])(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if "torch" not in sys.modules:
    sys.meta_path.insert(0, _Finder())  # type: ignore[arg-type]
