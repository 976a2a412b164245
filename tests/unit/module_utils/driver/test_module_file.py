"""Which module file modprobe would load, from what the real modprobe and modinfo said beside NVIDIA's real packages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import module_file
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.module_file import Lookup, ModuleFile

REAL = Path(__file__).parents[2] / "fixtures/real-packages"
KERNEL = "6.1.0-56-amd64"


def transcript(text: str) -> dict[str, CommandResult]:
    """Commands of a captured shell session and what each printed: ``$ command``, its lines, ``[rc N]`` where it was noted."""
    answers = {}
    for block in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, printed = block.partition("\n")
        status = re.search(r"^\[rc (\d+)\]", printed, re.MULTILINE)
        code = int(status.group(1)) if status else int("ERROR" in printed)
        answers[command.strip()] = CommandResult(code, printed if code == 0 else "", "" if code == 0 else printed)
    return answers


BUILT = transcript((REAL / "debian12/dkms-modinfo.txt").read_text())
FIELDS = dict(
    re.findall(r"^(version|license): +(.+)$", BUILT[f"modinfo -k {KERNEL} nvidia-current"].stdout, re.MULTILINE)
)


def built(argv: Sequence[str], _deadline: float) -> CommandResult:
    """The host with a real DKMS build of the proprietary driver."""
    if argv[:2] == ["modinfo", "-F"]:
        return CommandResult(0, FIELDS[argv[2]] + "\n")
    return BUILT[" ".join(argv)]


def test_debian_s_real_proprietary_module() -> None:
    found = module_file.find(KERNEL, run=built)
    assert found.lookup is Lookup.FOUND
    assert (found.name, found.version, found.flavor) == ("nvidia-current", "535.309.01", "proprietary")
    assert found.path == f"/lib/modules/{KERNEL}/updates/dkms/nvidia-current.ko"
    assert module_file.obstacle(found, "535.309.01", "proprietary") is None


def switched(part: str) -> str:
    """``modprobe -D nvidia`` after a switch from proprietary to open, with the proprietary support package and without."""
    lines = (REAL / "debian12/flavour-switch.txt").read_text().partition("--- without")[::2]
    text = lines[0] if part == "with" else lines[1]
    return next(line for line in text.splitlines() if line.startswith("install "))


@pytest.mark.parametrize(
    ("part", "name", "flavor", "refused"),
    [("with", "nvidia-current", "proprietary", True), ("without", "nvidia-current-open", "open", False)],
)
def test_the_alternative_decides_and_the_declared_flavour_is_asked_for(
    part: str, name: str, flavor: str, refused: bool
) -> None:
    """No file was built in either case; the line alone tells which one would be taken."""

    def run(argv: Sequence[str], _deadline: float) -> CommandResult:
        if argv[-1] == "nvidia":
            return CommandResult(0, switched(part) + "\n")
        return CommandResult(1, "", f"modprobe: FATAL: Module {argv[-1]} not found in directory /lib/modules/{KERNEL}")

    found = module_file.find(KERNEL, run=run)
    assert (found.lookup, found.name, found.flavor) == (Lookup.MISSING, name, flavor)
    cause = (module_file.obstacle(found, "535.261.03", "open") or ("", ""))[0]
    assert ("would load proprietary kernel modules (nvidia-current), open ones are declared" in cause) is refused


def test_without_any_driver_modprobe_finds_nothing(tmp_path: Path) -> None:
    (tmp_path / f"lib/modules/{KERNEL}/build").mkdir(parents=True)

    def run(_argv: Sequence[str], _deadline: float) -> CommandResult:
        return CommandResult(1, "", f"modprobe: FATAL: Module nvidia not found in directory /lib/modules/{KERNEL}")

    found = module_file.find(KERNEL, run=run, root=tmp_path)
    assert (found.lookup, found.name, found.flavor, found.headers) == (Lookup.MISSING, "nvidia", None, True)
    assert module_file.find("6.9", run=run, root=tmp_path).headers is False


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("install modprobe -i nvidia-current-open $CMDLINE_OPTS ", "nvidia-current-open"),
        ("install /sbin/modprobe --ignore-install nvidia-current $CMDLINE_OPTS", "nvidia-current"),
        ("install /usr/lib/lockstep-testbed/kernel insmod nvidia", "nvidia"),
        ("insmod /lib/modules/6.8.0-45-generic/updates/dkms/nvidia.ko NVreg_EnableGpuFirmware=1 ", None),
        ("", None),
    ],
)
def test_what_an_install_line_hands_over_to(line: str, name: str | None) -> None:
    assert module_file.handed_to(line) == name


@pytest.mark.parametrize(
    ("licence", "flavor"), [("NVIDIA\n", "proprietary"), ("Dual MIT/GPL\n", "open"), ("", None), ("GPL v2", "open")]
)
def test_flavour_by_licence(licence: str, flavor: str | None) -> None:
    assert module_file.flavor_of_licence(licence) == flavor


FOUND = ModuleFile(Lookup.FOUND, KERNEL, "nvidia-current-open", "/x/nvidia-current-open.ko", "550.163.01", "open")
MISSING = ModuleFile(Lookup.MISSING, KERNEL, "nvidia-current-open", flavor="open")
NO_HEADERS = ModuleFile(Lookup.MISSING, KERNEL, "nvidia-current-open", flavor="open", headers=False)


@pytest.mark.parametrize(
    ("found", "version", "flavor", "cause", "remedy"),
    [
        (FOUND, "550.163.01", "open", None, None),
        (FOUND, "550.163.01", None, None, None),
        (FOUND, "550.163.01", "proprietary", "would load open kernel modules (/x/nvidia-current-open.ko), proprietary ones", "update-alternatives"),
        (FOUND, "580.95.05", "open", "would load driver 550.163.01 (/x/nvidia-current-open.ko), not 580.95.05", "dkms status"),
        (MISSING, "550.163.01", "open", f"no module nvidia-current-open for kernel {KERNEL}: DKMS built none", f"dkms autoinstall -k {KERNEL}"),
        (NO_HEADERS, "550.163.01", "open", "its headers are missing", f"apt-get install -y linux-headers-{KERNEL}"),
        (MISSING, "550.163.01", "proprietary", "would load open kernel modules (nvidia-current-open)", "update-alternatives"),
        (ModuleFile(Lookup.UNKNOWN, KERNEL), "550.163.01", "open", None, None),
    ],
)  # fmt: skip
def test_obstacles(found: ModuleFile, version: str, flavor: str | None, cause: str | None, remedy: str | None) -> None:
    answer = module_file.obstacle(found, version, flavor)
    assert (answer is None) is (cause is None)
    if answer and cause and remedy:
        assert cause in answer[0]
        assert remedy in answer[1]


def test_no_modprobe_is_no_obstacle() -> None:
    found = module_file.find(KERNEL, run=lambda _argv, _deadline: CommandResult(None, stderr="not found"))
    assert found.lookup is Lookup.UNKNOWN
