"""A throw-away apt below /run: asks a repository that the host does not have yet, and leaves apt's own files as they are.

It has the host's dpkg status, sources, preferences and package lists, and room of its own for everything that apt
writes. So ``/etc/apt``, ``/var/lib/apt``, ``/var/cache/apt`` and ``/var/lib/dpkg`` stay byte for byte what they were.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ..core.commands import CommandResult, Run, run_command
from . import apt_output, apt_sources, repository_access
from .repository import Repository
from .repository_access import Access

RUN = Path("/run")
_PARTS = (
    "etc/sources.list.d",
    "etc/auth.conf.d",
    "etc/preferences.d",
    "state/lists/partial",
    "cache/archives/partial",
    "log",
)
_HOOKS = ("APT::Update::Pre-Invoke", "APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success")
"""What the host's apt does around an update; that would write files of the host."""
UPDATE_DEADLINE = 120.0


@dataclasses.dataclass(frozen=True)
class OwnSource:
    """The repository that the role is going to describe.

    Attributes:
        repository: where it is, and how it is laid out.
        keyring: the key's bytes.
        armoured: apt tells armoured keys from binary ones by the file's name.
        described_as: path of the key as the role will describe it.
        access: what it lets this host in by.
    """

    repository: Repository
    keyring: bytes
    armoured: bool
    described_as: str
    access: Access = dataclasses.field(default_factory=Access)


@dataclasses.dataclass(frozen=True)
class AptRoot:
    """The throw-away root; ``run`` takes commands of apt and makes them use it."""

    folder: Path
    command: Run = run_command

    def run(self, argv: Sequence[str], deadline: float) -> CommandResult:
        return self.command([argv[0], "-c", str(self.folder / "apt.conf"), *argv[1:]], deadline)

    def apt_get(self, arguments: Sequence[str], deadline: float) -> apt_output.AptAnswer:
        """Run ``apt-get`` and read what it said; one that was ended at its deadline says so.

        ``-q`` may stand among the arguments once at most: twice it hides what stands under "unmet dependencies".
        """
        answer = self.run(["apt-get", *arguments], deadline)
        if answer.returncode is None:
            said = answer.stderr or f"apt-get gave no answer within {deadline:g} s"
            return apt_output.AptAnswer(False, fault=apt_output.AptFault.OTHER, said=(said,))
        return apt_output.parse(answer.ok, f"{answer.stdout}\n{answer.stderr}")

    def check(self, deadline: float = 60.0) -> apt_output.AptAnswer:
        """``apt-get check``: can the sources be read, and are all dependencies of what is installed satisfied?"""
        return self.apt_get(["check"], deadline)

    def add(self, source: OwnSource, deadline: float = UPDATE_DEADLINE) -> apt_output.AptAnswer:
        """Describe the repository as the role will, and read its lists."""
        key = self.folder / f"own.{'asc' if source.armoured else 'gpg'}"
        key.write_bytes(source.keyring)
        for path in _source_files(self.folder):
            text = path.read_text(encoding="utf-8", errors="replace")
            if source.described_as in text:
                path.write_text(text.replace(source.described_as, str(key)), encoding="utf-8")
        own = self.folder / "etc/sources.list.d" / apt_sources.OURS.name
        own.write_text(source.repository.description(str(key)), encoding="utf-8")
        self._let_in(source)
        alone = apt_sources.alone(own)
        self._forget(alone, deadline)
        return self.apt_get([*alone, *apt_sources.UPDATE], deadline)

    def prefer(self, name: str, text: str, without: Collection[str] = ()) -> None:
        """Give apt these preferences under this name, and take those away that are named in ``without``."""
        folder = self.folder / "etc/preferences.d"
        for gone in without:
            (folder / gone).unlink(missing_ok=True)
        (folder / name).write_text(text, encoding="utf-8")

    def _let_in(self, source: OwnSource) -> None:
        """Give this apt, and no other, what the repository lets the host in by."""
        url, access = source.repository.url, source.access
        if access.username:
            repository_access.write_secret(
                self.folder / "etc/auth.conf.d/own.conf", repository_access.auth(access, url)
            )
        if access.client_certificate:
            certificate, key = self.folder / "own.crt", self.folder / "own.key"
            repository_access.write_secret(certificate, access.client_certificate)
            repository_access.write_secret(key, access.client_key)
            with (self.folder / "apt.conf").open("a", encoding="utf-8") as stream:
                stream.write(repository_access.configuration(url, str(certificate), str(key)))

    def _forget(self, alone: Sequence[str], deadline: float) -> None:
        """Drop the links to the host's lists of this repository, so that they are read anew, and never through a link."""
        targets = self.run(["apt-get", "indextargets", *alone, "--format", "$(FILENAME)"], deadline).stdout.split()
        starts = tuple(Path(target).name.partition("Packages")[0] for target in targets if "Packages" in target)
        for path in (self.folder / "state/lists").iterdir() if starts else ():
            if path.name.startswith(starts) and path.is_symlink():
                path.unlink()


@contextlib.contextmanager
def throw_away(
    *, root: Path = Path("/"), ignore: Collection[str] = (), command: Run = run_command, below: Path | None = None
) -> Iterator[AptRoot]:
    """The throw-away root, removed again. Only root can read it, as a copied description may hold a password.

    Args:
        root: the host's file system.
        ignore: names of preference files that are to be left out.
        command: runs apt.
        below: where it is made, ``RUN`` when left out.
    """
    with tempfile.TemporaryDirectory(prefix="lockstep-apt-", dir=below or RUN) as name:
        folder = Path(name)
        for part in _PARTS:
            (folder / part).mkdir(parents=True)
        _copy_sources(root, folder)
        for path in sorted((root / "etc/apt/preferences.d").glob("*")):
            if path.is_file() and path.name not in ignore:
                shutil.copyfile(path, folder / "etc/preferences.d" / path.name)
        if (root / "etc/apt/preferences").is_file():
            shutil.copyfile(root / "etc/apt/preferences", folder / "etc/preferences")
        lists = root / "var/lib/apt/lists"
        for path in lists.iterdir() if lists.is_dir() else ():
            if path.is_file() and path.name != "lock":
                os.symlink(path, folder / "state/lists" / path.name)
        (folder / "apt.conf").write_text(_configuration(root, folder), encoding="utf-8")
        yield AptRoot(folder, command)


def _copy_sources(root: Path, folder: Path) -> None:
    """The host's descriptions, less our own: it is written anew by ``add``."""
    if (root / apt_sources.SOURCES_LIST).is_file():
        shutil.copyfile(root / apt_sources.SOURCES_LIST, folder / "etc/sources.list")
    parts = root / apt_sources.SOURCES_PARTS
    for path in sorted(parts.iterdir()) if parts.is_dir() else ():
        if path.suffix in (".list", ".sources") and path.is_file() and path.name != apt_sources.OURS.name:
            shutil.copyfile(path, folder / "etc/sources.list.d" / path.name)


def _source_files(folder: Path) -> list[Path]:
    single = folder / "etc/sources.list"
    return [*([single] if single.exists() else []), *sorted((folder / "etc/sources.list.d").iterdir())]


def _configuration(root: Path, folder: Path) -> str:
    settings = {
        "Dir::State": folder / "state",
        "Dir::State::lists": "lists/",
        "Dir::State::status": root / "var/lib/dpkg/status",
        "Dir::State::extended_states": root / "var/lib/apt/extended_states",
        "Dir::Cache": folder / "cache",
        "Dir::Cache::archives": "archives/",
        "Dir::Log": folder / "log",
        "Dir::Etc::SourceList": folder / "etc/sources.list",
        "Dir::Etc::SourceParts": folder / "etc/sources.list.d",
        "Dir::Etc::Preferences": folder / "etc/preferences",
        "Dir::Etc::PreferencesParts": folder / "etc/preferences.d",
        "Dir::Etc::NetrcParts": folder / "etc/auth.conf.d",
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": "root",
        "Acquire::Retries": "1",
        "Acquire::http::Timeout": "20",
        "Acquire::https::Timeout": "20",
    }
    return "\n".join(
        [*(f'{name} "{value}";' for name, value in settings.items()), *(f"#clear {name};" for name in _HOOKS), ""]
    )
