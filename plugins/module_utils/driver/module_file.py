"""Which file ``modprobe nvidia`` would load: of which driver version, and whether open or proprietary. Nothing is loaded.

The name alone does not say it. Debian's files are ``nvidia-current.ko`` and ``nvidia-current-open.ko``, and an ``install`` line
of whichever ``nvidia`` alternative is chosen decides between them; elsewhere the file is ``nvidia.ko``. ``modprobe -D``
follows these lines and prints what it would do.
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from ..core.codes import Code
from ..core.commands import Run, run_command
from .packages import Flavor

_TO_ANOTHER = r"modprobe\s+(?:-\S+\s+)*?(?:-i|--ignore-install)\s+(?:-\S+\s+)*([\w-]+)"
"""The module that an ``install`` line ends with: ``modprobe -i nvidia-current-open $CMDLINE_OPTS``. Others that it names come
before, such as those that a host with confidential computing loads first."""


class Lookup(Code):
    """What became of the question."""

    FOUND = "found"
    MISSING = "missing"  # modprobe would find no file
    UNKNOWN = "unknown"  # modprobe is not there, or gave no answer


@dataclasses.dataclass(frozen=True)
class ModuleFile:
    """The file that modprobe would take for ``nvidia``.

    Attributes:
        kernel: the kernel that was asked about.
        name: the module's name as modprobe resolves it, ``nvidia-current-open``.
        path: where it lies; empty unless found.
        version: the driver that it is of; None where it does not say.
        flavor: by its licence, or by Debian's name where there is no file; None where neither says.
        headers: whether DKMS could build for this kernel.
    """

    lookup: Lookup
    kernel: str
    name: str = "nvidia"
    path: str = ""
    version: str | None = None
    flavor: Flavor | None = None
    headers: bool = True


def find(
    kernel: str | None = None, *, run: Run = run_command, deadline: float = 10.0, root: Path = Path("/")
) -> ModuleFile:
    """The file for ``kernel``, which is the running one where it is None. ``deadline`` bounds each command."""
    kernel = kernel or os.uname().release
    headers = (root / "lib/modules" / kernel / "build").exists()
    asked = ["modprobe", "-S", kernel, "-D"]
    answer = run([*asked, "nvidia"], deadline)
    if answer.returncode is None:
        return ModuleFile(Lookup.UNKNOWN, kernel, headers=headers)
    name = handed_to(answer.stdout)
    if answer.ok and name:  # the line hands over to another name, or to a program that is not modprobe
        answer = run([*asked, "-i", name], deadline)
    name = name or "nvidia"
    path = inserted(answer.stdout) if answer.ok else ""
    if not path:
        lookup = Lookup.UNKNOWN if answer.returncode is None else Lookup.MISSING
        return ModuleFile(lookup, kernel, name, flavor=flavor_of_name(name), headers=headers)
    version = run(["modinfo", "-F", "version", path], deadline).stdout.strip() or None
    flavor = flavor_of_licence(run(["modinfo", "-F", "license", path], deadline).stdout) or flavor_of_name(name)
    return ModuleFile(Lookup.FOUND, kernel, name, path, version, flavor, headers)


def handed_to(shown: str) -> str | None:
    """The module that an ``install`` line loads in place of ``nvidia``; None where no line stands in between."""
    line = next((line for line in shown.splitlines() if line.startswith("install ")), None)
    if line is None:
        return None
    names = re.findall(_TO_ANOTHER, line)
    return names[-1] if names else "nvidia"


def inserted(shown: str) -> str:
    """The file of the last ``insmod`` line, which is the module itself: what it needs comes before it. Empty without one."""
    lines = [line.split() for line in shown.splitlines() if line.startswith("insmod ")]
    return lines[-1][1] if lines else ""


def flavor_of_licence(text: str) -> Flavor | None:
    """By what ``modinfo -F license`` says: NVIDIA's own licence, or a free one."""
    if "GPL" in text or "MIT" in text:
        return "open"
    return "proprietary" if text.strip() == "NVIDIA" else None


def flavor_of_name(name: str) -> Flavor | None:
    """By Debian's names of files; others do not tell."""
    if not re.fullmatch(r"nvidia-(current|tesla-[\d-]+)(-open)?", name.replace("_", "-")):
        return None
    return "open" if name.endswith("open") else "proprietary"


def obstacle(found: ModuleFile, version: str, flavor: str | None) -> tuple[str, str] | None:
    """Why loading ``found`` would not give the declared driver, and the command that helps; None when it would.

    Args:
        found: the file.
        version: the driver that is to run.
        flavor: the kernel modules that are declared; None where that does not matter.
    """
    if found.lookup is Lookup.UNKNOWN:
        return None
    if flavor and found.flavor and found.flavor != flavor:
        taken = f"{found.flavor} kernel modules ({found.path or found.name})"
        cause = f"modprobe nvidia would load {taken}, {flavor} ones are declared"
        return cause, "update-alternatives --auto nvidia; dpkg -l 'nvidia*kernel*'"
    if found.lookup is Lookup.MISSING and not found.headers:
        cause = (
            f"there is no module {found.name} for kernel {found.kernel}: DKMS built none, as its headers are missing"
        )
        return cause, f"apt-get install -y linux-headers-{found.kernel}"
    if found.lookup is Lookup.MISSING:
        return (
            f"there is no module {found.name} for kernel {found.kernel}: DKMS built none",
            f"dkms autoinstall -k {found.kernel}",
        )
    if found.version and found.version != version:
        cause = f"modprobe nvidia would load driver {found.version} ({found.path}), not {version}"
        return cause, "dkms status"
    return None
