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

    DRIVER = r"""
options:
  source:
    description: Where the packages come from.
    type: str
    choices: [nvidia, mirror, ubuntu, debian]
    default: nvidia
  flavor:
    description: Which kernel modules.
    type: str
    choices: [open, proprietary]
    default: open
  fabric_manager:
    description: >-
      V(auto) installs fabric manager where NVSwitches are found, or where it is installed already. Where ConnectX
      functions manage the NVSwitches (HGX B200) C(nvlsm), C(libnvsdm) and C(infiniband-diags) come with it. C(nvidia-imex)
      is installed where NVLink reaches other hosts, unless this is V(absent).
    type: str
    choices: [auto, present, absent]
    default: auto
  prebuilt_modules:
    description: >-
      Take Ubuntu's signed prebuilt modules, for every kernel that may boot next, instead of DKMS. Only with
      O(source=ubuntu).
    type: bool
    default: false
  repository_url:
    description: The repository. Required with O(source=nvidia) and O(source=mirror), where packages are looked for.
    type: str
  repository_suite:
    description: The suite; one that ends with a slash is a folder of a flat repository.
    type: str
    default: /
  repository_components:
    description: The components of a suite below C(dists/).
    type: list
    elements: str
    default: []
"""
