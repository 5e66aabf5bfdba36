"""What a failed call to the Hub means: whether to ask again, and what to tell a person. Makes no call."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from lorauter_integrations.errors import PoolError


class CutOffError(Exception):
    """A file's connection ended early."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often and how patiently something is asked again.

    Attributes:
        tries: failures in a row, without progress between them, after which it is given up.
        base: seconds before the second try; each next pause is twice as long, and by chance up to half shorter.
        longest: seconds; a server that asks to wait for longer is an error.
    """

    tries: int = 6
    base: float = 1.0
    longest: float = 300.0  # the Hub counts calls in windows of five minutes

    def pause(self, failures: int, error: Exception, asked: float = 0.0) -> float | None:
        """Seconds to wait after so many failures in a row; None to give up.

        Args:
            failures: at least 1.
            error: the last of them.
            asked: seconds that the server asked for.
        """
        code = status(error)
        is_passing = code in (0, 408, 429) or code >= 500
        if not is_passing or failures >= self.tries or asked > self.longest:
            return None
        return max(asked, self.base * 2.0 ** (failures - 1) * random.uniform(0.5, 1.0))


PATIENT = Backoff()


def status(error: Exception) -> int:
    """The HTTP status that the server answered; 0 when there was no answer."""
    return int(getattr(getattr(error, "response", None), "status_code", 0))


def retry_after(value: str) -> float:
    """Seconds of a Retry-After header, which holds seconds or a date; 0 when it holds neither."""
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def in_words(error: Any, what: str, repo: str, endpoint: str) -> PoolError:
    """The error for a person.

    Args:
        error: of a call, given up.
        what: was asked for.
        repo: ORG/NAME; empty for a search.
        endpoint: the Hub's address.
    """
    code = status(error)
    reason = error.response.headers.get("X-Error-Code", "") if code else ""
    page = f"{endpoint}/{repo}"
    token = "set HF_TOKEN to a token that may read it (https://huggingface.co/settings/tokens)"
    if reason == "GatedRepo" or (code in (401, 403) and reason != "RepoNotFound"):
        licence = f"accept the licence at {page}, and " if repo else ""
        return PoolError(f"{what} is gated or private ({code})", hint=licence + token)
    if reason == "RevisionNotFound":
        return PoolError(
            f"there is no {what}: no such revision ({code})", hint=f"branches and tags: {page}/tree/main"
        )
    if code in (401, 404):
        return PoolError(f"there is no {what} on {endpoint} ({code})", hint=f"if it is private, {token}")
    if code:
        return PoolError(f"{endpoint} answered {code} to {what}", hint=_later(code))
    return PoolError(f"{endpoint} does not give {what}: {error or type(error).__name__}", hint=_later(code))


def _later(code: int) -> str:
    kept = "what has arrived is kept and the same command goes on from there"
    return f"{kept}; a token in HF_TOKEN has a higher limit" if code == 429 else kept
