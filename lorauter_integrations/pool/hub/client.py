"""What is asked of the Hub, with patience. The only code that knows huggingface_hub; knows no pool.

huggingface_hub lists, searches, signs requests and knows its cache. Files are streamed here, since its own downloads
begin anew after a kill (partial files are named by process), do not check hashes, and cannot stop after a header.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi, constants, hf_hub_url, is_offline_mode, scan_cache_dir, try_to_load_from_cache
from huggingface_hub.errors import CacheNotFound, HfHubHTTPError
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # exported, but not to type checkers
    build_hf_headers,
    get_session,
    hf_raise_for_status,
    parse_ratelimit_headers,
)

from lorauter_integrations.errors import PoolError
from lorauter_integrations.pool.hub.answers import PATIENT, Backoff, CutOffError, in_words, retry_after, status
from lorauter_integrations.pool.hub.listing import Found, Listing, RemoteFile
from lorauter_integrations.pool.hub.location import is_repo

# Every failure of a request; of httpx or httpx2, whichever this version of huggingface_hub speaks.
_HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]
_BLOCK = 1 << 16
_PROGRESS = 1 << 20  # bytes after which a connection that breaks again is not counted as the same failure
_DOWNLOADS = 2  # of a file that arrives damaged
T = TypeVar("T")


class Hub:
    """The Hugging Face Hub, or a mirror of it.

    Args:
        endpoint: its address; HF_ENDPOINT or https://huggingface.co when empty.
        token: for gated repositories; HF_TOKEN or the saved one when None.
        cache: huggingface_hub's cache; its own default when None.
        offline: make no call; also so when HF_HUB_OFFLINE is set.
        backoff: how often a call is repeated.
        on_bytes: called with a file's path, the bytes that are there, and its size.
        sleep: waits some seconds.
    """

    def __init__(
        self,
        *,
        endpoint: str = "",
        token: str | None = None,
        cache: Path | None = None,
        offline: bool = False,
        backoff: Backoff = PATIENT,
        on_bytes: Callable[[str, int, int], None] = lambda *_: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api = HfApi(endpoint=endpoint or None, token=token)
        self._cache = cache
        self.offline = offline or is_offline_mode()
        self._backoff = backoff
        self._on_bytes = on_bytes
        self._sleep = sleep

    @property
    def endpoint(self) -> str:
        """Its address."""
        return self._api.endpoint

    def listing(self, repo: str, revision: str) -> Listing:
        """The adapters' files of a repository, at the commit that the revision is now. One call.

        Raises:
            PoolError: no such repository or revision, no permission, or the Hub does not answer.
        """
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        try:
            info = self._patiently(
                lambda: self._api.model_info(repo, revision=revision, files_metadata=True, timeout=timeout),
                f"{repo} at {revision!r}",
                repo,
            )
            return Listing.from_answer(repo, revision, info)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PoolError(f"{self.endpoint} answered something that is not a list of {repo}'s files") from error

    def cached_listing(self, repo: str, revision: str) -> Listing | None:
        """The same from huggingface_hub's cache, without a call; None when it does not hold that revision."""
        try:
            repos = scan_cache_dir(self._cache).repos
        except CacheNotFound:
            return None
        for known in (r for r in repos if (r.repo_type, r.repo_id) == ("model", repo)):
            for cached in known.revisions:
                if revision in {cached.commit_hash, *cached.refs}:
                    return Listing.from_cache(repo, revision, cached)
        return None

    def search(self, base: str, limit: int) -> list[Found]:
        """Adapters of a base model, those with most downloads first.

        Args:
            base: the base model's name on the Hub.
            limit: at most so many.

        Raises:
            PoolError: offline, or the Hub does not answer.
        """
        if self.offline:
            raise PoolError("offline, so the Hub cannot be searched", hint="unset HF_HUB_OFFLINE")
        wanted = f"base_model:adapter:{base}"
        try:
            # Repeated by huggingface_hub itself.
            models = self._api.list_models(
                filter=wanted,
                sort="downloads",
                limit=limit,
                expand=["downloads", "likes", "lastModified", "usedStorage"],
            )
            found = [Found.from_answer(model) for model in models if is_repo(model.id)]
        except _HTTPError as error:
            raise in_words(error, f"the search for {wanted}", "", self.endpoint) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PoolError(f"{self.endpoint} answered something that is not a list of models") from error
        return sorted(found, key=lambda model: -model.downloads)

    def download(self, listing: Listing, file: RemoteFile, target: Path) -> None:
        """Bring a whole file and see that it is the right one.

        Raises:
            PoolError: it arrived damaged, more than once; or as `fetch` does.
        """
        for _ in range(_DOWNLOADS):
            self.fetch(listing, file, target)
            if file.is_intact(target):
                return
            target.unlink()
            target.touch()  # the cache is used for files that are not there only
        raise PoolError(
            f"{file.path} of {listing.repo} arrived damaged {_DOWNLOADS} times: its {file.size} bytes do not have "
            f"the hash {file.digest}",
            hint="try again later, or from another HF_ENDPOINT",
        )

    def fetch(self, listing: Listing, file: RemoteFile, target: Path, *, until: int | None = None) -> bool:
        """Bring the beginning of a file; what `target` has already, or huggingface_hub's cache, is not asked for.

        Args:
            listing: what the file is in.
            file: one of the listing's.
            target: grows to `until` bytes.
            until: the file's size when None.

        Returns:
            False when only a beginning was wanted and the server cannot send one.

        Raises:
            PoolError: offline, no permission, or the connection breaks again and again.
        """
        end = file.size if until is None else min(until, file.size)
        cached = try_to_load_from_cache(listing.repo, file.path, cache_dir=self._cache, revision=listing.commit)
        if isinstance(cached, str):
            file.take(Path(cached).resolve(), target)
        target.touch()
        if target.stat().st_size >= end:
            return True
        if self.offline:
            raise PoolError(
                f"offline, and {file.path} of {listing.repo} at {listing.commit[:12]} is neither in the pool nor in "
                "the cache",
                hint="run the same command once with a network",
            )
        return self._patiently(
            lambda: self._append(listing, file, target, end),
            f"{file.path} of {listing.repo} at {listing.revision!r}",
            listing.repo,
            lambda: target.stat().st_size,
        )

    def _append(self, listing: Listing, file: RemoteFile, target: Path, end: int) -> bool:
        start = target.stat().st_size
        url = hf_hub_url(listing.repo, file.path, revision=listing.commit, endpoint=self.endpoint)
        headers = build_hf_headers(token=self._api.token) | {
            "Accept-Encoding": "identity",  # a range of a compressed body is not a range of the file
            "Range": f"bytes={start}-{end - 1}",
        }
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=headers, timeout=timeout) as answer, target.open("ab") as out:
            hf_raise_for_status(answer)
            if answer.status_code != 206:
                if end < file.size:
                    return False
                out.truncate(start := 0)
            for block in self._blocks(answer.iter_bytes(_BLOCK), end - start):
                start += out.write(block)
                self._on_bytes(f"{listing.repo}/{file.path}", start, file.size)
        if start < end:
            raise CutOffError(f"it ended after {start} of {end} bytes")
        return True

    @staticmethod
    def _blocks(blocks: Iterable[bytes], room: int) -> Iterable[bytes]:
        """No more than was asked for, whatever the server sends."""
        for block in blocks:
            yield block[:room]
            room -= len(block)
            if room <= 0:
                return

    def _patiently(self, call: Callable[[], T], what: str, repo: str, reached: Callable[[], int] = lambda: 0) -> T:
        """Repeat a call while it fails for a passing reason.

        Own, since huggingface_hub repeats single requests only: no listing, no 5xx of a download, no jitter, and its
        waits cannot be set.
        """
        failures, before = 0, reached()
        while True:
            try:
                return call()
            except (_HTTPError, CutOffError) as error:
                if (now := reached()) >= before + _PROGRESS:
                    failures, before = 0, now
                failures += 1
                pause = self._backoff.pause(failures, error, _asked_pause(error))
                if pause is None:
                    raise in_words(error, what, repo, self.endpoint) from error
            self._sleep(pause)


def _asked_pause(error: Any) -> float:
    """Seconds that the server asked for, in one header or the other; 0 when it did not."""
    if not status(error):
        return 0.0
    headers = error.response.headers
    limit = parse_ratelimit_headers(headers)
    exhausted = float(limit.reset_in_seconds) if limit and limit.remaining == 0 else 0.0
    return max(exhausted, retry_after(headers.get("Retry-After", "")))
