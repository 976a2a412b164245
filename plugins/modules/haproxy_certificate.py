#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_certificate
short_description: Install a router's certificate, and see that clients get it
description:
  - V(present) examines certificate and key on the controller (the key fits, it is valid now), has HAProxy read both from
    a file beside the one in use, and replaces that in one step. Where HAProxy cannot use them, what was in use stays.
  - V(presented) connects as a client does until it gets the certificate of that file, for up to 30 seconds. HAProxy is
    reloaded where it still presents another one, as after a run that ended too early.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.change
options:
  state:
    description: What is wanted.
    type: str
    choices: [present, presented]
    default: present
  path:
    description: The file with certificate, chain and key. Readable by root alone.
    type: path
    default: /etc/haproxy/lockstep.pem
  certificate:
    description: The certificate and its chain, its own first, as PEM text or as the absolute path of a file on the controller.
    type: str
  key:
    description: The certificate's key, without a passphrase, in the same way. The file may be in a vault.
    type: str
  bundle:
    description: Both, as one PEM text. Filled in by the action.
    type: str
  address:
    description: Where HAProxy listens, for V(presented).
    type: str
    default: "*"
  port:
    description: Its port.
    type: int
    default: 8443
"""

EXAMPLES = r"""
- name: Install certificate and key
  lockstep.vllm.haproxy_certificate:
    certificate: "{{ inventory_dir }}-files/router.pem"
    key: "{{ inventory_dir }}-files/router.key"

- name: Require that clients get the certificate
  lockstep.vllm.haproxy_certificate:
    state: presented
"""

RETURN = r"""
expires:
  description: When the certificate expires, in Unix seconds.
  returned: with O(state=present)
  type: int
names:
  description: The names and addresses that the certificate is valid for.
  returned: with O(state=present)
  type: list
  elements: str
tls:
  description: The version of TLS that was agreed on.
  returned: with O(state=presented)
  type: str
  sample: TLSv1.3
alpn:
  description: The protocol that was agreed on.
  returned: with O(state=presented)
  type: str
  sample: h2
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils import haproxy_tls
from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import run_command
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop

NEXT = "journalctl -u haproxy"
DEADLINE = 30.0
"""Seconds within which clients must get the certificate, and that a command of HAProxy or systemd may take."""


def check(argv: list[str]) -> haproxy_tls.Checked:
    done = run_command(argv, DEADLINE)
    return haproxy_tls.Checked(done.returncode, done.stderr)


def install(module: AnsibleModule) -> None:
    path, bundle = Path(module.params["path"]), module.params["bundle"]
    changed = not haproxy_tls.installed(path, bundle)
    if changed and not module.check_mode:
        haproxy_tls.install(path, bundle, check)
    module.exit_json(changed=changed)


def wait(module: AnsibleModule) -> None:
    params = module.params
    wanted = haproxy_tls.fingerprint(Path(params["path"]).read_text(encoding="ascii"))
    seen, reloaded = haproxy_tls.wait_presented(
        wanted,
        lambda: haproxy_tls.see(params["address"], params["port"]),
        (lambda: None) if module.check_mode else _reload,
        DEADLINE,
    )
    module.exit_json(changed=reloaded, tls=seen.tls, alpn=seen.alpn)


def _reload() -> None:
    done = run_command(["systemctl", "reload", "haproxy.service"], DEADLINE)
    if not done.ok:
        raise haproxy_tls.CertificateError(f"HAProxy cannot be reloaded: {done.stderr.strip()}")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "presented"], "default": "present"},
            "path": {"type": "path", "default": "/etc/haproxy/lockstep.pem"},
            "certificate": {"type": "str"},
            "key": {"type": "str", "no_log": True},
            "bundle": {"type": "str", "no_log": True},
            "address": {"type": "str", "default": "*"},
            "port": {"type": "int", "default": 8443},
        },
        required_if=[("state", "present", ["bundle"])],
        supports_check_mode=True,
    )
    work = install if module.params["state"] == "present" else wait
    try:
        work(module)
    except (haproxy_tls.CertificateError, OSError) as error:
        module.fail_json(**Stop.of(error, NEXT).as_result())


if __name__ == "__main__":
    main()
