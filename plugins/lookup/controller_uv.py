# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: controller_uv
short_description: The uv of the controller's locked environment
description:
  - Returns the path of the uv binary that the controller's Python environment holds, or the architecture it runs on. The binary
    has the checksum that the installed package C(uv) records, which its lock checked; one on C(PATH) is never used.
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

import base64
import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):
    """Where the controller's uv is."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        answers = {"path": checked_uv, "architecture": platform.machine}
        unknown = [term for term in terms if term not in answers]
        if unknown:
            raise AnsibleError(f"controller_uv knows path and architecture, not {', '.join(unknown)}")
        return [answers[term]() for term in terms]


def checked_uv() -> str:
    """The path of uv. Raises AnsibleError where there is none, or where it was replaced since it was installed."""
    try:
        package = importlib.metadata.distribution("uv")
    except importlib.metadata.PackageNotFoundError as error:
        raise AnsibleError("this Python has no package uv. Next: make env, or pip install uv") from error
    binary = next((file for file in package.files or () if file.name == "uv" and file.parent.name == "bin"), None)
    if binary is None or binary.hash is None or binary.hash.mode != "sha256":
        raise AnsibleError("the package uv records no checksum of its binary. Next: make env, or pip install uv")
    path = Path(str(binary.locate())).resolve()
    recorded = base64.urlsafe_b64decode(binary.hash.value + "=" * (-len(binary.hash.value) % 4))
    if _sha256(path) != recorded:
        cause = f"{path} is not the file that the package uv {package.version} brought: it was replaced"
        raise AnsibleError(f"{cause}. Next: pip install --force-reinstall uv=={package.version}")
    return str(path)


def _sha256(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
