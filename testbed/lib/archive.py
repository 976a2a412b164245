"""Debian's archive as this machine's own apt knows it: where it lies, and sources for a release of it."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.lib import shell
from testbed.lib.errors import TestbedError

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
COMPONENTS = ("main", "contrib", "non-free", "non-free-firmware")


def addresses(targets: str) -> dict[str, str]:
    """Where ``archive`` and ``security`` lie, from ``apt-get indextargets`` as lines ``origin|release|address``."""
    found: dict[str, str] = {}
    for line in targets.splitlines():
        fields = line.split("|")
        if len(fields) == 3 and fields[0] == "Debian":
            found.setdefault("security" if fields[1].endswith("-security") else "archive", fields[2])
    return found


def sources(suite: str, components: Sequence[str] = COMPONENTS, extra: Sequence[str] = ()) -> list[str]:
    """Lines of ``sources.list`` for a release, its updates and security archive, and further suites such as backports.

    Raises:
        TestbedError: this machine's apt knows no archive of Debian.
    """
    targets = shell.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(RELEASE)|$(REPO_URI)", "Created-By: Packages"]
    )
    where = addresses(targets.stdout)
    if "archive" not in where:
        raise TestbedError("this machine's apt knows no archive of Debian: describe one in /etc/apt/sources.list.d")
    where.setdefault("security", where["archive"].rstrip("/") + "-security")
    listed = " ".join(components)
    return [
        f"deb [signed-by={KEYRING}] {where['security' if name.endswith('-security') else 'archive']} {name} {listed}"
        for name in (suite, f"{suite}-updates", f"{suite}-security", *extra)
    ]
