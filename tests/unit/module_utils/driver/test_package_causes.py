"""Why packages or modules failed, from what apt, dpkg, DKMS and modprobe printed: each case's right value stands beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.causes import Cause, CauseKind
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import package_causes

FIXTURES = Path(__file__).parents[2] / "fixtures"


BUILD_LOGS = {
    "another compiler's plug-ins (CachyOS/linux-cachyos#11)": (
        "warning: the compiler differs from the one used to build the kernel\n"
        "cc1: error: incompatible gcc/plugin versions\n"
        "cc1: error: failed to initialize plugin ./scripts/gcc-plugins/structleak_plugin.so\n",
        "cc1: error: incompatible gcc/plugin versions",
    ),
    "no compiler (pkoutoupis/rapiddisk#182)": (
        "warning: the compiler differs from the one used to build the kernel\n"
        "  The kernel was built by: x86_64-linux-gnu-gcc-9 (Ubuntu 9.4.0-1ubuntu1~20.04.2) 9.4.0\n"
        "  You are using:           \n"
        "  CC [M]  /tmp/3/module/rapiddisk.o\n"
        "/bin/sh: 1: gcc-9: not found\n"
        "make[4]: *** [scripts/Makefile.build:243: /tmp/3/module/rapiddisk.o] Error 127\n",
        "/bin/sh: 1: gcc-9: not found",
    ),
    "an option that the compiler does not know": (
        "x86_64-linux-gnu-gcc-11: error: unrecognized command-line option '-ftrivial-auto-var-init=zero'\n",
        "x86_64-linux-gnu-gcc-11: error: unrecognized command-line option '-ftrivial-auto-var-init=zero'",
    ),
    "a full disk": (
        "/usr/bin/ld: final link failed: No space left on device\nmake[1]: *** [Makefile:1] Error 1\n",
        "/usr/bin/ld: final link failed: No space left on device",
    ),
    "a symbol that the kernel keeps to itself": (
        "FATAL: modpost: GPL-incompatible module nvidia.ko uses GPL-only symbol 'rcu_read_unlock_strict'\n",
        "FATAL: modpost: GPL-incompatible module nvidia.ko uses GPL-only symbol 'rcu_read_unlock_strict'",
    ),
    "a tool that kernels do without is no reason beside a compiler's": (
        "/bin/sh: 1: pahole: not found\n  CC [M]  nvidia/nv.o\nnvidia/nv.c:12:9: error: too few arguments to function 'x'\n",
        "nvidia/nv.c:12:9: error: too few arguments to function 'x'",
    ),
    "only what make says of it": ("make[1]: *** [Makefile:1] Error 2\n", ""),
}


@pytest.mark.parametrize(("log", "error"), BUILD_LOGS.values(), ids=BUILD_LOGS)
def test_why_a_module_does_not_build(log: str, error: str) -> None:
    cause = Cause(CauseKind.DKMS, "driver 550.163.01 does not build", log="/var/lib/dkms/x/make.log")
    found = package_causes.with_build_log(cause, log)
    assert found.text == (f"{cause.text}: {error}" if error else cause.text)
    assert found.log == ("" if error else cause.log)


def text(name: str) -> str:
    return (FIXTURES / name).read_text(encoding="utf-8")


PACKAGES = {
    "DKMS points at its log (the log has the compiler's error)": (
        "cases/dkms-reason-in-make-log/said.txt",
        "cases/dkms-reason-in-make-log/make.log",
        [
            (
                CauseKind.DKMS,
                "driver 550.163.01 does not build for kernel 6.19.3-amd64: common/inc/nv-mm.h:324:23: error: 'struct "
                "vm_area_struct' has no member named '__vm_flags'; did you mean 'vm_flags'?",
            )
        ],
    ),
    "a real build that fails, dkms 3.2.2": (
        "dkms/3.2.2/dkms-build-fails-apt.txt",
        "dkms/3.2.2/dkms-build-fails-make.log",
        [
            (
                CauseKind.DKMS,
                "driver 550.163.01 does not build for kernel 6.12.118+deb13-amd64: nvidia/nv-pci.c:237:9: error: too few "
                "arguments to function 'pci_resize_resource'",
            )
        ],
    ),
    "apt's unmet dependencies": (
        "cases/apt-desktop-driver/said.txt",
        None,
        [
            (
                CauseKind.UNMET,
                "nvidia-driver-550-open: Depends: xserver-xorg-video-nvidia-550 (= 550.127.05-0ubuntu1) but it is not going "
                "to be installed",
            )
        ],
    ),
    "apt 3's solver": (
        "apt/errors/apt3-solver-conflict.txt",
        None,
        [
            (
                CauseKind.UNMET,
                "nvidia-smi: Depends: libnvidia-ml1 (= 550.163.01-4~bpo13+1) but 580.95.05-1 is to be installed",
            ),
        ],
    ),
    "sqv refuses a key": (
        "apt/errors/apt-sqv-sha1-key.txt",
        None,
        [
            (
                CauseKind.SIGNATURE,
                "Signing key on DFE600ED80A5D183054253326FE03B048AF4FBAA is not accepted: SHA1 is not considered secure since "
                "2026-02-01",
            )
        ],
    ),
}


@pytest.mark.parametrize(("said", "log", "right"), PACKAGES.values(), ids=PACKAGES)
def test_why_packages_failed(said: str, log: str | None, right: list[tuple[CauseKind, str]]) -> None:
    found = package_causes.of_packages(text(said))
    if log is not None:
        assert found[0].log.endswith("/build/make.log")
        found = tuple(package_causes.with_build_log(cause, text(log)) for cause in found)
    assert [cause.kind for cause in found] == [kind for kind, _ in right]
    for cause, (_, start) in zip(found, right, strict=True):
        assert cause.text.startswith(start)
        assert not cause.text.endswith((".", ":"))


MODPROBE = {
    "Debian's alternative without its file": (
        "modprobe: FATAL: Module nvidia-current not found in directory /lib/modules/6.18.44-node\n"
        "modprobe: ERROR: ../libkmod/libkmod-module.c:1047 command_do() Error running install command 'modprobe -i "
        "nvidia-current ' for module nvidia: retcode 1\n"
        "modprobe: ERROR: could not insert 'nvidia': Invalid argument\n",
        "Module nvidia-current not found in directory /lib/modules/6.18.44-node",
    ),
    "the kernel refuses": (
        (FIXTURES / "cases/open-module-on-volta/modprobe.txt").read_text(),
        "could not insert 'nvidia': No such device",
    ),
    "something else": ("modprobe: FATAL: Module nvidia is in use.\n", "modprobe: FATAL: Module nvidia is in use."),
    "nothing": ("", "no reason given"),
}


@pytest.mark.parametrize(("said", "reason"), MODPROBE.values(), ids=MODPROBE)
def test_why_modprobe_failed_is_one_line(said: str, reason: str) -> None:
    assert package_causes.of_modprobe(said).text == reason
