# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: controller_uv
short_description: The uv of the controller's locked environment
description:
  - Returns the path of the uv binary that the controller's Python environment holds, or the architecture it runs on.
  - The role serving_runtime copies that binary to the hosts, so that all use one version and need no internet.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
options:
  _terms:
    description: V(path) or V(architecture).
    required: true
    choices: [path, architecture]
"""

EXAMPLES = r"""
- name: Copy uv
  ansible.builtin.copy:
    src: "{{ lookup('lockstep.vllm.controller_uv', 'path') }}"
    dest: /opt/lockstep/bin/uv
    mode: "0755"
"""

RETURN = r"""
_raw:
  description: Path of the binary, or architecture as of C(uname -m).
  type: list
  elements: str
"""

import platform
import shutil
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):
    """Where the controller's uv is."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        answers = {"path": _path, "architecture": platform.machine}
        unknown = [term for term in terms if term not in answers]
        if unknown:
            raise AnsibleError(f"controller_uv knows path and architecture, not {', '.join(unknown)}")
        return [answers[term]() for term in terms]


def _path() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if not found:
        raise AnsibleError(f"no uv beside {sys.executable} nor on the PATH. Next: make env")
    return found
