"""Run one module of this library as root, with nothing of any user in it.

``/usr/bin/python3 -I -S -B /opt/lockstep/lib/lockstep/core/isolated.py lockstep.admission.condition host``: under ``-I -S``
Python reads no ``usercustomize``, no ``.pth`` file and no variable. Without, it would read those of the home folder that the
unit's environment names, and so let whoever serves decide whether the host may serve. What the module starts gets an
environment of fixed content, and the socket on which systemd waits to hear from a ``Type=notify`` unit.
"""

import os
import runpy
import sys

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/nonexistent",
    "LC_ALL": "C.UTF-8",
}
KEPT = ("NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "RUNTIME_DIRECTORY")
"""Variables of systemd's own that are handed on."""


def main() -> None:
    if len(sys.argv) < 2 or not sys.flags.isolated or not sys.flags.no_site:
        sys.exit("usage: /usr/bin/python3 -I -S -B isolated.py lockstep.MODULE [ARGUMENT ...]")
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    os.environ.update(kept)
    os.chdir("/")
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path.insert(0, os.path.dirname(package))
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
