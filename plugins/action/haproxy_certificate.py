"""Examine a router's certificate and key here, and hand them to the module that installs them."""

from __future__ import annotations

import datetime

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import certificates, stops
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Action, Values


class ActionModule(Action):
    """The action behind lockstep.vllm.haproxy_certificate (documented in plugins/modules/haproxy_certificate.py)."""

    _VALID_ARGS = frozenset({"state", "path", "certificate", "key", "address", "port"})

    def act(self, arguments: Values, task_vars: Values) -> Values:
        certificate, key = arguments.pop("certificate", ""), arguments.pop("key", "")
        added: dict[str, object] = {}
        if arguments.get("state", "present") == "present":
            try:
                found = certificates.load(certificate, key, self._loader.get_text_file_contents)
            except certificates.CertificateError as error:
                raise stops.fail(error.stop) from error
            wrong = [
                each.stop for each in certificates.problems(found, datetime.datetime.now(datetime.UTC)) if each.refuses
            ]
            if wrong:
                raise stops.fail(Stop("; ".join(stop.cause for stop in wrong)))
            arguments["bundle"] = found.bundle
            added = {"expires": int(found.expires.timestamp()), "names": list(found.names)}
        result = self._execute_module("lockstep.vllm.haproxy_certificate", arguments, task_vars=task_vars)
        return {**result, **added}
