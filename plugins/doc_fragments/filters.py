# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations


class ModuleDocFragment:
    """``lockstep.vllm.filters``: of filters over ``hostvars``; the others: what some of them take besides."""

    DOCUMENTATION = r"""
options:
  _input:
    description: C(hostvars).
    type: dict
    required: true
"""

    GROUPS = r"""
options:
  groups:
    description: C(groups).
    type: dict
    required: true
"""

    WAVE = r"""
options:
  members:
    description: The wave's hosts as planned.
    type: list
    elements: str
    required: true
  batch:
    description: Hosts that Ansible still speaks to (C(ansible_play_batch)).
    type: list
    elements: str
    required: true
"""

    HOST = r"""
options:
  host:
    description: The host's name in the inventory.
    type: str
    required: true
"""

    STAGE = r"""
options:
  stage_file:
    description: File of the stage, such as V(apply.yml).
    type: str
    required: true
  rolling_back:
    description: Whether the stage belongs to the wave's rollback.
    type: bool
    required: true
"""
