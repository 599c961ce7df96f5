"""Clips in an S3-compatible object store, over boto3: its usual chain of credentials, its regions and addresses.

An object's ETag tells whether it has changed. It is no digest in every store and not for every object (encrypted, sent
in parts), so bytes are not compared with it: each read asks for that ETag alone, and the length is checked.
"""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore import UNSIGNED, exceptions
from botocore.config import Config
from botocore.parsers import ResponseParserError

from ltx2_job.errors import AuthError, ConfigError, JobError, Problem, UnavailableError
from ltx2_job.fetching import Transient
from ltx2_job.mirror import place
from ltx2_job.mirror.source import Item, Listed, is_clip

if TYPE_CHECKING:
    from ltx2_job.config import DatasetConfig

_CHUNK: Final = 1 << 20
_CONFIG: Final = {
    "connect_timeout": 10,
    "read_timeout": 30,  # seconds without a byte before another try
    "retries": {"total_max_attempts": 1},  # tried again by the fetcher, which can be told to stop
    # A part of an object never has the checksum of the whole, which some stores send beside it.
    "response_checksum_validation": "when_required",
    "user_agent_extra": "ltx2-operator",
}
_KEYS: Final = (
    "give keys that may list and read it: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (on a cluster: a "
    "Secret with those keys named in spec.secrets.objectStore)"
)
_REFUSED: Final = frozenset(
    (
        "AccessDenied", "AllAccessDisabled", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken",
        "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired",
    )
)  # fmt: skip
_MOVED: Final = frozenset(("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"))
_ELSEWHERE: Final = frozenset((301, 302, 307))
_NO_KEYS: Final = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.TokenRetrievalError,
    exceptions.SSOError,
    exceptions.UnauthorizedSSOTokenError,
)


def _without_another_look(request_dict: dict[str, Any], **_: Any) -> None:
    """Sent elsewhere, the SDK asks for the bucket's region by HEAD; sent elsewhere again, by another, for ever."""
    request_dict["context"]["s3_redirect"]["redirected"] = True


class ObjectStore:
    """The objects of a dataset below its prefix. Raises ConfigError where its keys or the profile cannot be meant."""

    def __init__(self, dataset: "DatasetConfig"):
        self.named = place.named(dataset)
        self._field = f"datasets[{dataset.id}]"
        self._bucket, self._prefix = str(dataset.aws_bucket_name), place.prefix_of(dataset)
        with self._explained():
            session = boto3.session.Session()
            self._anonymous = session.get_credentials() is None
            options = {**_CONFIG, **({"signature_version": UNSIGNED} if self._anonymous else {})}
            try:
                self._client: Any = session.client(
                    "s3", endpoint_url=dataset.aws_endpoint_url, region_name=dataset.aws_region_name,
                    config=Config(**options),
                )  # fmt: skip
            except ValueError as error:  # an address in AWS_ENDPOINT_URL that is none; the key's was looked at before
                problem = Problem("AWS_ENDPOINT_URL", str(error), "write https://host or http://host:port")
                raise ConfigError(problem) from None
        self._client.meta.events.register_first("needs-retry.s3.HeadBucket", _without_another_look)
        self._store = self._client.meta.endpoint_url

    def listing(self) -> Listed:
        """Every object below the prefix, by its name behind it."""
        with self._explained():
            return Listed({name: item for page in self._pages() for name, item in page})

    def has_clip(self) -> bool:
        """Whether there is one; no more pages are asked for than it takes to find it."""
        with self._explained():
            return any(is_clip(name) for page in self._pages() for name, _ in page)

    @contextmanager
    def reading(self, listed: Listed, name: str, begin: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """The bytes of an object from a position on, if it is still the listed one."""
        wanted = {"Range": f"bytes={begin}-"} if begin else {}
        with self._explained(name):
            answer = self._client.get_object(
                Bucket=self._bucket, Key=f"{self._prefix}{name}", IfMatch=listed.files[name].tag, **wanted
            )
            status = answer["ResponseMetadata"]["HTTPStatusCode"]
            with contextlib.closing(answer["Body"]) as body:
                yield (begin if status == 206 else 0), body.iter_chunks(_CHUNK)

    def _pages(self) -> Iterator[list[tuple[str, Item]]]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        for page in pages:
            if "Name" not in page:  # any XML, a console's page as well, is read as a bucket without objects
                raise self._no_store("what it says is no listing of a bucket")
            yield [
                (entry["Key"].removeprefix(self._prefix), Item(int(entry["Size"]), str(entry["ETag"])))
                for entry in page.get("Contents", [])
                if not entry["Key"].endswith("/")  # what consoles make to show an empty folder
            ]

    @contextmanager
    def _explained(self, name: str = "") -> Iterator[None]:
        """Turn what the library raises into errors that say what to do."""
        try:
            yield
        except exceptions.ClientError as error:
            raise self._answered(error, name) from None
        except _NO_KEYS as error:
            raise AuthError(f"{self.named}: {error}; {_KEYS}") from None
        except (exceptions.ProfileNotFound, exceptions.ConfigParseError, exceptions.ConfigNotFound) as error:
            problem = Problem("AWS_PROFILE", str(error), "name a profile of ~/.aws/config, or unset it")
            raise ConfigError(problem) from None
        except exceptions.SSLError as error:
            raise UnavailableError(
                f"{self.named}: {error}; name the certificates to trust in AWS_CA_BUNDLE (on a cluster: the chart's ca)"
            ) from None
        except exceptions.ParamValidationError as error:
            raise ConfigError(Problem(f"{self._field}.aws_bucket_name", " ".join(str(error).split()))) from None
        except ResponseParserError:
            raise self._no_store("what it answers is not S3") from None
        except (exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError) as error:
            raise Transient(f"{self.named}: {error}") from None
        except exceptions.BotoCoreError as error:
            raise UnavailableError(f"{self.named}: {error}") from None

    def _answered(self, error: exceptions.ClientError, name: str) -> JobError | Transient:
        """What an answer of 300 and above means."""
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        said = f"{self._store} answers {status}" + (f" {code}" if code and code != str(status) else "")
        if code == "NoSuchBucket":
            what = f"there is no bucket {self._bucket} on {self._store}"
            return self._problem("aws_bucket_name", what, "correct the name, or aws_endpoint_url")
        if code == "InvalidBucketName":
            return self._problem("aws_bucket_name", f"{self._bucket!r} is no name of a bucket", "correct the name")
        if code in _MOVED:
            where = error.response.get("Error", {}).get("Region") or "that of the bucket"
            return self._problem("aws_region_name", f"{self._bucket} lies in another region ({said})", f"write {where}")
        if status in (401, 403) or code in _REFUSED:
            how = "no keys of an object store were found here" if self._anonymous else "these keys may not read it"
            return AuthError(f"{self.named}: {said}: {how}; {_KEYS}")
        if status == 412 or (name and status == 404):
            return UnavailableError(f"{self.named}{name}: it was changed or removed during the download; run again")
        if status == 416:
            return Transient(f"{name} ends sooner than it is listed")
        if status in (408, 425, 429) or status >= 500 or code in ("SlowDown", "RequestTimeout"):
            # The SDK makes a 500 of what is no S3 at all, such as a page of a console.
            doubt = "" if code and code != str(status) else "; is aws_endpoint_url the address of its S3 interface?"
            return Transient(f"{self.named}: {said}{doubt}")
        return self._no_store("it sends every question elsewhere; is it https?" if status in _ELSEWHERE else said)

    def _no_store(self, what: str) -> ConfigError:
        remedy = "correct it; it is the address of the S3 interface, not of a console"
        return self._problem("aws_endpoint_url", f"{self._store} does not answer as an object store ({what})", remedy)

    def _problem(self, key: str, what: str, remedy: str) -> ConfigError:
        return ConfigError(Problem(f"{self._field}.{key}", what, remedy))
