"""Digests of what a role does, not of its files' bytes: another comment, task name or description makes no host due.

What counts, by file:

* YAML: the values that it means. Names of tasks and ``meta/`` (specs and descriptions, which leave nothing on a host) do not.
* Templates, locks and other text: the lines, less comments and blank ones. A role that is due for another reason writes its
  templates with their new comments; it is in a wave then, or is one that restarts nothing that serves.
* Python and tables of data (``whole``): every byte. They are the library that ``gpu_host`` puts on hosts under what serves, so
  that a host has the files of the version that manages it, and an error's line numbers are those that one reads.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

LEFT_OUT = {"__pycache__", "molecule", "README.md", "meta"}
_LISTS_OF_TASKS = ("block", "rescue", "always")
_JINJA_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_COMMENT = re.compile(r"\s*[#;](?!!)")


def of(role: Path, whole: Iterable[Path] = ()) -> str:
    """One digest over the names and the meaning of all files of a role, and over the bytes of all below ``whole``."""
    total = hashlib.sha256()
    for folder in (role, *whole):
        left_out = LEFT_OUT if folder == role else {"__pycache__"}
        for path in sorted(item for item in folder.rglob("*") if item.is_file()):
            relative = path.relative_to(folder)
            if left_out.isdisjoint(relative.parts):
                content = path.read_bytes()
                said = meaning(relative, content) if folder == role else content
                total.update(f"{folder.name}/{relative}\0".encode() + hashlib.sha256(said).digest())
    return total.hexdigest()


def meaning(name: Path, content: bytes) -> bytes:
    """What of a role's file decides what the role does."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return content
    if name.suffix in (".yml", ".yaml"):
        return _yaml(text, tasks=name.parts[0] == "tasks")
    if name.suffix == ".py":
        return content
    return _lines(text)


def _yaml(text: str, tasks: bool) -> bytes:
    try:
        read = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:  # a tag of Ansible's own
        return _lines(text)
    return json.dumps(_unnamed(read) if tasks else read, sort_keys=True, default=str).encode()


def _unnamed(tasks: Any) -> Any:
    """A list of tasks without their names; a module's own ``name`` stands one level deeper and stays."""
    if not isinstance(tasks, list):
        return tasks
    return [
        {key: _unnamed(value) if key in _LISTS_OF_TASKS else value for key, value in task.items() if key != "name"}
        if isinstance(task, dict)
        else task
        for task in tasks
    ]


def _lines(text: str) -> bytes:
    without = _JINJA_COMMENT.sub("", text)
    # A comment with a template in it is kept: what it holds may be a statement.
    kept = (line.rstrip() for line in without.splitlines() if "{%" in line or not _COMMENT.match(line))
    return "\n".join(line for line in kept if line).encode()
