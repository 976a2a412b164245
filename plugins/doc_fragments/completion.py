# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations


class ModuleDocFragment:
    """``lockstep.vllm.completion``: the options of a completion that proves a server."""

    DOCUMENTATION = r"""
options:
  url:
    description: >-
      Address of vLLM, C(http://host:port), without a path. Without it the engine is asked that this host is configured to run
      (C(/etc/lockstep/engine.json)), by all that is configured there: address, model, prompt, answer, key, length and deadline.
    type: str
  model:
    description: The name that the model is served under. Required with O(url).
    type: str
  prompt:
    description: What to complete. Required with O(url).
    type: str
  expected:
    description: Text that the completion must contain. Without it any token will do.
    type: str
  api_key:
    description: Sent as a bearer token.
    type: str
  max_tokens:
    description: Length of a completion, in tokens.
    type: int
    default: 16
  deadline:
    description: Seconds that a completion may take.
    type: float
    default: 60
"""
