"""Where an adapter lies on the Hub, and what it may be called in a pool. Knows no network.

Names from the Hub are written by strangers: only plain ones become folders.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from lorauter_integrations.errors import PoolError
from lorauter_integrations.pool.adapter import CONFIG, PICKLED, WEIGHTS
from lorauter_integrations.pool.wording import shown

PREFIX = "hub:"
SOURCE = "source.json"

_REPO = re.compile(r"\w([\w.-]{0,94}\w)?/\w([\w.-]{0,94}\w)?", re.ASCII)
_PART = re.compile(r"\w[\w .,+=@()\[\]-]{0,118}", re.ASCII)
_LONGEST = 400  # characters of a folder within a repository
_FILES = {CONFIG, WEIGHTS, PICKLED, SOURCE}


@dataclass(frozen=True, slots=True)
class HubLocation:
    """One repository of the Hub at a revision, or a folder of it.

    Attributes:
        repo: ORG/NAME.
        revision: branch, tag or commit.
        sub: the folder; empty for the whole repository.
    """

    repo: str
    revision: str = "main"
    sub: str = ""

    @classmethod
    def parse(cls, text: str) -> HubLocation:
        """Read `hub:ORG/NAME[@REV][/SUB]`; a slash within REV is written %2F.

        Raises:
            PoolError: it is not such a location, or SUB is no plain folder name.
        """
        match = re.fullmatch(rf"{PREFIX}([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.+?)/?)?", text.strip())
        if not match or not is_repo(match[1]):
            raise PoolError(
                f"{shown(text.strip())} is not a location on the Hub",
                hint="write hub:ORG/NAME, hub:ORG/NAME@REVISION or hub:ORG/NAME@REVISION/FOLDER",
            )
        revision, sub = unquote(match[2] or "main"), match[3] or ""
        if not revision.isprintable() or {"", ".", ".."} & set(revision.split("/")):
            raise PoolError(
                f"{shown(revision)} cannot be a revision of {match[1]}", hint="name a branch, tag or commit"
            )
        if problem := folder_problem(sub):
            raise PoolError(f"{shown(sub)} cannot be a folder of {match[1]}: {problem}")
        return cls(match[1], revision, sub)

    def __str__(self) -> str:
        at = "" if self.revision == "main" else f"@{quote(self.revision, safe='')}"
        return f"{PREFIX}{self.repo}{at}{'/' if self.sub else ''}{self.sub}"


def is_repo(name: str) -> bool:
    """Whether this is a name that the Hub gives to repositories."""
    return bool(_REPO.fullmatch(name)) and not {"--", ".."} & {name[i : i + 2] for i in range(len(name))}


def pool_name(repo: str, sub: str) -> str:
    """What the pool calls the adapter: ORG--NAME, and the folder within the repository."""
    return "/".join(filter(None, (repo.replace("/", "--"), sub)))  # the Hub allows no -- in a name


def folder_problem(sub: str) -> str:
    """Why a repository's folder cannot be a folder of the pool; empty when it can."""
    if len(sub) > _LONGEST:
        return f"it has {len(sub)} characters, more than {_LONGEST}"
    for part in sub.split("/") if sub else ():
        if not _PART.fullmatch(part) or part.endswith((".", " ")):
            return f"{shown(part)} is not a plain name"
        if part.lower() in _FILES:
            return f"{part!r} is the name of a file"
    return ""
