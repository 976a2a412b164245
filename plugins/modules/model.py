#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: model
short_description: Stage, verify and prune models on a host's disk
description:
  - Brings a model's files by curl from a hub, a web server, a path of the host or
    the controller to a folder of their own, checks every file against its SHA-256, and makes the model visible by a rename.
  - The work is done by C(lockstep-model.service), a transient unit of user C(lockstep) under whatever serves. It goes on where
    the connection or the controller is lost; a later run waits for the same unit, or goes on with what it left.
  - Never writes into a model that is visible. One that another source or list of files has made is refused.
  - Root opens nothing below O(folder).
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
options:
  verb:
    description:
      - V(stage) brings the model; V(verify) hashes every file of it; V(prune) removes the models that staging made and O(keep)
        does not name; V(warm) reads O(path) into the page cache; V(list) names the models that the host uses.
    type: str
    choices: [stage, verify, prune, warm, list]
    required: true
  folder:
    description: The folder of models, which belongs to user C(lockstep); V(stage) makes it where it is missing.
    type: path
    required: true
  name:
    description: Name of the model's folder in it.
    type: str
    default: ""
  source:
    description: V(hub:owner/name), the URL of a folder, an absolute path, or V(controller:/path).
    type: str
    default: ""
  revision:
    description: Of a repository of a hub.
    type: str
    default: main
  checksums:
    description: Lines of C(sha256sum) that name every file, where the source has none.
    type: str
    default: ""
  files:
    description: What the controller sends, with size and SHA-256 by path. For the action alone.
    type: dict
    default: {}
  exclude:
    description: Patterns of files to leave out.
    type: list
    elements: str
    default: []
  environment:
    description: Variables for the tools, such as C(HF_ENDPOINT) and C(https_proxy).
    type: dict
    default: {}
  hub_token:
    description: Token of the hub.
    type: str
  hash_again:
    description: V(stage) hashes a model that is there already, and fetches what is damaged again.
    type: bool
    default: false
  keep:
    description: Names of models that V(prune) must not remove; those that the host uses are kept besides.
    type: list
    elements: str
    default: []
  path:
    description: What V(warm) reads.
    type: str
    default: ""
  warm_seconds:
    description: Seconds that V(warm) may read.
    type: float
    default: 600
  deadline:
    description: Seconds to wait for the end of the work.
    type: float
    default: 14400
  limit:
    description: Seconds after which the unit ends.
    type: float
    default: 14400
  ticket:
    description: Of the unit that an earlier call began. For the action alone.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Asks the source, says what would be fetched or removed, and changes nothing.
  diff_mode:
    support: none
    description: What changed is in the result.
"""

EXAMPLES = r"""
- name: Stage model
  lockstep.vllm.model:
    verb: stage
    folder: /srv/lockstep/models
    name: llama-3.1-405b
    source: hub:meta-llama/Llama-3.1-405B-Instruct
    hub_token: "{{ vault_hub_token }}"
"""

RETURN = r"""
code:
  description: V(done), V(deadline) while it goes on, or why it failed.
  returned: always
  type: str
reason:
  description: What goes on, or why it failed, for people.
  returned: always
  type: str
digest:
  description: Of the model's files, the same on every host that has the same model.
  returned: by V(stage) and V(verify)
  type: str
bytes:
  description: Of the model; of what V(prune) removed.
  returned: always
  type: int
brought:
  description: Bytes that were or would be fetched.
  returned: always
  type: int
files:
  description: Files that are missing or damaged, each with what is wrong; those that the controller has to send.
  returned: always
  type: dict
removed:
  description: Models that were or would be removed.
  returned: always
  type: list
  elements: str
in_use:
  description: Names of the models that an engine is configured with or a process has open.
  returned: by V(list)
  type: list
  elements: str
ticket:
  description: Of the unit.
  returned: always
  type: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.model import unit
from ansible_collections.lockstep.vllm.plugins.module_utils.model.codes import Result, Verb
from ansible_collections.lockstep.vllm.plugins.module_utils.model.request import Answer, Request


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "verb": {"type": "str", "choices": ["stage", "verify", "prune", "warm", "list"], "required": True},
            "folder": {"type": "path", "required": True},
            "name": {"type": "str", "default": ""},
            "source": {"type": "str", "default": ""},
            "revision": {"type": "str", "default": "main"},
            "checksums": {"type": "str", "default": ""},
            "files": {"type": "dict", "default": {}},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "environment": {"type": "dict", "default": {}},
            "hub_token": {"type": "str", "no_log": True},
            "hash_again": {"type": "bool", "default": False},
            "keep": {"type": "list", "elements": "str", "default": []},
            "path": {"type": "str", "default": ""},
            "warm_seconds": {"type": "float", "default": 600.0},
            "deadline": {"type": "float", "default": 14400.0},
            "limit": {"type": "float", "default": 14400.0},
            "ticket": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params, folder = module.params, Path(module.params["folder"])
    if params["verb"] == "list":
        names = sorted(unit.configured(folder) | unit.in_use(folder))
        module.exit_json(changed=False, in_use=names, **result(Answer(Result.DONE), ""))
    asked = unit.Call(
        request=request(params, module.check_mode),
        token=params["hub_token"] or None,
        limit=params["limit"],
        seconds=params["deadline"],
        ticket=params["ticket"],
    )
    made = False
    if asked.request.verb is Verb.STAGE and not asked.ticket:
        made, refused = unit.make_folder(folder, module.check_mode)
        if refused is not None:
            finish(module, refused, "", made)
        if made and module.check_mode and not unit.prepared():
            finish(module, Answer(Result.DONE, "it would be staged once the host is prepared", changed=True), "", made)
    elif not unit.prepared():
        nothing = asked.request.verb is not Verb.VERIFY
        finish(module, Answer(Result.DONE if nothing else Result.NOT_STAGED, unit.UNPREPARED), "", made)
    called = unit.call(asked)
    finish(module, called.answer, called.ticket, made)


def request(params: dict[str, Any], dry: bool) -> Request:
    verb, folder = Verb(params["verb"]), Path(params["folder"])
    keep = {*params["keep"], *(unit.configured(folder) | unit.in_use(folder) if verb is Verb.PRUNE else ())}
    return Request(
        verb=verb,
        folder=str(folder),
        name=params["name"],
        source=params["source"],
        revision=params["revision"],
        checksums=params["checksums"],
        files=params["files"],
        exclude=tuple(params["exclude"]),
        environment={name: str(value) for name, value in params["environment"].items()},
        hash_again=params["hash_again"],
        dry=dry,
        keep=tuple(sorted(keep)),
        path=params["path"],
        seconds=params["warm_seconds"],
    )


def result(answer: Answer, ticket: str) -> dict[str, Any]:
    return {**{name: each for name, each in answer.as_record().items() if name != "changed"}, "ticket": ticket}


def finish(module: AnsibleModule, answer: Answer, ticket: str, made: bool) -> None:
    changed = answer.changed or made
    if answer.code in (Result.DONE, Result.UPLOAD):
        module.exit_json(changed=changed, **result(answer, ticket))
    module.fail_json(msg=answer.reason, changed=changed, **result(answer, ticket))


if __name__ == "__main__":
    main()
