"""Base of the actions of this collection: they take the options that the module of their name documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import yaml
from ansible.plugins.action import ActionBase

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals, settings, variables

Values = settings.Values
"""What Ansible hands to an action and takes from it: a task's arguments, its variables, its result."""


class Action(ActionBase):
    """Checks first that this ansible-core is supported, and then the arguments.

    Attributes:
        DOCUMENTATION: of the module of the same name, whose options are the arguments. Left out where the action adds some
            and the module checks them; ``_VALID_ARGS`` then says what a task may give.
        REQUIRED_IF: as ansible-core's argument specs have it.
    """

    DOCUMENTATION: ClassVar[str] = ""
    REQUIRED_IF: ClassVar[Sequence[tuple[str, str, list[str]]]] = ()

    def run(self, tmp: Any = None, task_vars: Values | None = None) -> Values:
        ansible_internals.require_supported_version()
        super().run(tmp, task_vars)
        return self.act(self._checked(), task_vars or {})

    def _checked(self) -> Values:
        if not self.DOCUMENTATION:
            return dict(self._task.args)
        options = yaml.load(self.DOCUMENTATION, Loader=settings.YAML).get("options", {})
        spec = variables.argument_spec(options, apply_defaults=True)
        _result, arguments = self.validate_argument_spec(argument_spec=spec, required_if=self.REQUIRED_IF)
        return dict(arguments)

    def act(self, arguments: Values, task_vars: Values) -> Values:
        """What the action does, once its arguments are checked."""
        raise NotImplementedError
