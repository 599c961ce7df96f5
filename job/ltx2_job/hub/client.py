"""The Hub over plain HTTP: what a repository holds, and the bytes of a file from any position on.

huggingface_hub speaks the protocol (addresses, token, redirects to the storage, what an answer means). Its own
downloader is not used: it throws away what it has fetched when it is cut or killed, and these files have 40 GB. Plain
HTTP is enough up to the 50 GB a file that the Hub serves that way, so hf_xet is not needed.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, Final

import httpx2
from huggingface_hub import HfApi, get_session, get_token, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from ltx2_job import places
from ltx2_job.errors import AuthError, ConfigError, JobError, NoInputError, Problem, UnavailableError
from ltx2_job.fetching import Transient
from ltx2_job.hub.choice import Entry, Listing
from ltx2_job.places import Repository

ENDPOINT: Final = "https://huggingface.co"
_CONNECT: Final = 10.0  # seconds
_READ: Final = 30.0  # seconds without a byte before another try
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_TOKEN_REMEDY: Final = (
    "put a token of an account that may read it into HF_TOKEN (on a cluster: a Secret named in spec.secrets.hubToken)"
)


class Hub:
    """The Hub that HF_ENDPOINT names, with the token of HF_TOKEN or of `hf auth login` if there is one."""

    def __init__(self, environ: Mapping[str, str] = os.environ):
        self.endpoint = (environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
        self._offline = places.is_offline(environ)
        self._token = get_token()
        if self._token and (not self._token.isascii() or not self._token.isprintable() or " " in self._token):
            raise AuthError("HF_TOKEN holds no token: there are blanks or other characters in it; copy it anew")

    def listing(self, repository: Repository) -> Listing:
        """What the repository holds at its revision, and which commit that is now.

        Raises AuthError, ConfigError (no such repository or revision), NoInputError (HF_HUB_OFFLINE), Transient.
        """
        self._require_online(repository)
        api = HfApi(endpoint=self.endpoint, token=self._token or False)
        try:
            with self._named(repository):
                ask = api.model_info if repository.kind == "model" else api.dataset_info
                info = ask(repository.name, revision=repository.revision, files_metadata=True, timeout=_READ)
            if info.sha is None or not _COMMIT.fullmatch(info.sha) or not info.siblings:
                raise ValueError("no commit or no files")
            return Listing(repository, info.sha, {each.rfilename: _entry(each) for each in info.siblings})
        except (ValueError, KeyError, TypeError) as error:
            raise UnavailableError(
                f"{self.endpoint} does not answer for {repository} as a Hub does ({error}); look at HF_ENDPOINT and at "
                "proxies"
            ) from None

    @contextmanager
    def reading(self, listing: Listing, name: str, begin: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """The bytes of a file: (position of the first one, chunks). Asks for those from `begin` on.

        A server that knows no ranges begins at 0. Raises as `listing`, also while chunks are read.
        """
        self._require_online(listing.repository)
        repository = listing.repository
        url = hf_hub_url(
            repository.name, name, repo_type=repository.kind, revision=listing.commit, endpoint=self.endpoint
        )
        headers = build_hf_headers(token=self._token or False) | {"Accept-Encoding": "identity"}
        if begin:
            headers["Range"] = f"bytes={begin}-"
        timeout = httpx2.Timeout(_READ, connect=_CONNECT)
        with (
            self._named(repository, name),
            get_session().stream("GET", url, headers=headers, timeout=timeout) as response,
        ):
            if response.status_code == 416:
                raise Transient(f"{name} has no bytes from {begin} on")
            hf_raise_for_status(response)
            yield (begin if response.status_code == 206 else 0), response.iter_bytes()  # as they come: a cut loses none

    def _require_online(self, repository: Repository) -> None:
        if self._offline:
            where, page = ("models", "models") if repository.kind == "model" else ("downloads", "datasets")
            raise NoInputError(
                f"{repository} is not in {where}/, and HF_HUB_OFFLINE forbids to ask for it; copy it there from a "
                f"machine that has it (docs/{page}.md), or unset HF_HUB_OFFLINE"
            )

    @contextmanager
    def _named(self, repository: Repository, name: str = "") -> Iterator[None]:
        """Turn what the libraries raise into errors that say what to do."""
        try:
            yield
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            problem = Problem("HF_ENDPOINT", f"{self.endpoint!r} is no address ({error})", f"write {ENDPOINT}")
            raise ConfigError(problem) from None
        except HfHubHTTPError as error:
            raise self._answered(error, repository, name) from None
        except OfflineModeIsEnabled as error:
            raise NoInputError(str(error)) from None
        except HFValidationError as error:
            raise ConfigError(Problem(repository.field, str(error))) from None
        except httpx2.HTTPError as error:
            raise Transient(f"{self.endpoint}: {str(error) or type(error).__name__}") from None

    def _answered(self, error: HfHubHTTPError, repository: Repository, name: str) -> JobError | Transient:
        """What an answer of 400 and above means."""
        status = error.response.status_code if error.response is not None else 0
        page = f"{self.endpoint}/{'datasets/' * (repository.kind == 'dataset')}{repository.name}"
        whose = "your token's account" if self._token else "an account"
        if isinstance(error, GatedRepoError):
            accept = f"accept its licence with {whose} at {page}"
            return AuthError(f"{repository} is gated: {accept}" + ("" if self._token else f", then {_TOKEN_REMEDY}"))
        if isinstance(error, RevisionNotFoundError):
            known = Problem(repository.field, f"{repository.name} has no revision {repository.revision!r}",
                            f"look at {page}/commits/main, or write {repository.name}")  # fmt: skip
            return ConfigError(known)
        if status == 404 and not isinstance(error, RepositoryNotFoundError):
            return ConfigError(Problem(repository.field, f"{repository} has no file {name!r} on {self.endpoint}"))
        if status == 404:
            return ConfigError(
                Problem(repository.field, f"{repository.name} is {_no_such(repository)} on {self.endpoint}",
                        "correct the name; a private repository needs a token that may read it")
            )  # fmt: skip
        if status in (401, 403):
            if self._token:
                how = "is not open to your token, which may be wrong, expired or without the right to read it"
            else:
                how = "cannot be read without a token: the name is wrong, or it is private"
            return AuthError(f"{repository} on {self.endpoint} {how}; {_TOKEN_REMEDY}")
        if status in (408, 425, 429) or status >= 500:
            return Transient(f"{self.endpoint} answers {status}")
        return UnavailableError(f"{self.endpoint} answers {status} for {repository} {name}".rstrip())


def _no_such(repository: Repository) -> str:
    kinds = {"model": "neither a path of the workspace nor a repository", "dataset": "no repository of data sets"}
    return kinds[repository.kind]


def _entry(sibling: Any) -> Entry:
    """Size and digest of a listed file. Raises ValueError for an entry that could not be checked or leads elsewhere."""
    path = PurePosixPath(sibling.rfilename)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"a file is called {sibling.rfilename!r}")
    if sibling.lfs is not None and _SHA256.fullmatch(sibling.lfs.sha256):
        return Entry(int(sibling.lfs.size), f"sha256:{sibling.lfs.sha256}")
    if sibling.size is None or not _COMMIT.fullmatch(sibling.blob_id or ""):
        raise ValueError(f"no size and digest of {sibling.rfilename}")
    return Entry(int(sibling.size), f"git:{sibling.blob_id}")
