# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations


class ModuleDocFragment:
    """What the documentation of several modules has in common."""

    READ_ONLY = r"""
attributes:
  check_mode:
    support: full
    description: Reads only.
  diff_mode:
    support: none
    description: Changes nothing.
"""

    RECORD = r"""
attributes:
  check_mode:
    support: full
    description: Reports what would change and writes nothing.
  diff_mode:
    support: none
    description: The record is in the result.
"""

    CHANGE = r"""
attributes:
  check_mode:
    support: full
    description: Reports what would change and changes nothing.
  diff_mode:
    support: none
    description: What changed is in the result.
"""

    CONTROLLER = r"""
attributes:
  action:
    support: full
    description: Runs on the controller, once for the whole play, and reaches the hosts itself.
"""

    RUNTIME_LOCK = r"""
options:
  lock:
    description: Requirements file on the host, every distribution pinned. Hashes are required where it has them.
    type: path
    required: true
  extra_requirements:
    description: Further pinned requirements that no lock has, such as plug-ins.
    type: list
    elements: str
    default: []
  python:
    description: Interpreter of the host.
    type: str
    default: python3
"""
