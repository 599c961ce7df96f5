"""Requests to the API server: JSON in, JSON out, through the official client's connection and credentials.

Its typed models are left aside: a list of 5,000 Jobs takes ten times as long with them and three times the memory; and
its answers drop the Warning header, in which the server says what it accepts but will not run.
"""

import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import load_incluster_config, load_kube_config

from ltx2_job.errors import ConfigError, Problem
from ltx2_operator.runtime import shapes
from ltx2_operator.runtime.bucket import TokenBucket

Body = dict[str, Any]
Found = TypeVar("Found")
APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_WARNING: Final = re.compile(r'\d{3} \S+ "((?:[^"\\]|\\.)*)"')


class ApiError(Exception):
    """The API server refused or could not be reached (code 0); the message is one line for people."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        self.code, self.reason = code, reason
        super().__init__(message)


class NotFound(ApiError):
    """404."""


class Conflict(ApiError):
    """409: it exists already, or was changed since it was read."""


class Gone(ApiError):
    """410: the watch's place in history is not kept any more."""


@dataclass(frozen=True)
class Answer:
    """A body and what the server warns of."""

    body: Body
    warnings: tuple[str, ...] = field(default=())


class Api:
    """One API server. agent: who asks, for its audit log. `counted` is told of each request: (verb, code)."""

    def __init__(
        self,
        configuration: Configuration,
        bucket: TokenBucket,
        *,
        timeout: float,
        connections: int,
        agent: str = "ltx2-operator",
        counted: Callable[[str, int], None] = lambda verb, code: None,
    ) -> None:
        configuration.retries = False
        configuration.connection_pool_maxsize = connections
        configuration.keep_alive = True  # a watch whose peer is gone ends by itself
        self._client = ApiClient(configuration)
        self._bucket, self._timeout, self._agent, self._counted = bucket, timeout, agent, counted

    @property
    def host(self) -> str:
        """The server's address."""
        return str(self._client.configuration.host)

    def get(self, path: str, query: Mapping[str, Any] | None = None, accept: str = "application/json") -> Body:
        """Read one object or a list. Raises ApiError."""
        return self.request("GET", path, query, accept=accept).body

    def list(self, path: str, query: Mapping[str, Any], shape: Any) -> tuple[list[Body], Body]:
        """Objects of one page of a list, each reduced to its shape (shapes.py), and the page's metadata.

        Raises ApiError.
        """
        self._bucket.take()
        response = self._send("GET", path, query, None, "", "application/json", self._timeout, "GET")
        return _read(shapes.read_list, self._data(response), shape)

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Body | None = None,
        *,
        content: str = "application/json",
        accept: str = "application/json",
        timeout: float | None = None,
        limited: bool = True,
    ) -> Answer:
        """One request. `limited`: it waits for the rate limit. Raises ApiError (NotFound, Conflict, Gone)."""
        if limited:
            self._bucket.take()
        response = self._send(method, path, query, body, content, accept, timeout or self._timeout, method)
        data = self._data(response)
        warnings = [text for line in response.headers.getlist("Warning") for text in _WARNING.findall(line)]
        return Answer(_json(data), tuple(text.replace('\\"', '"').replace("\\\\", "\\") for text in warnings))

    def watch(self, path: str, query: Mapping[str, Any], silence: float, shape: Any) -> Iterator[tuple[str, Body]]:
        """The events of a watch, as (kind, object in its shape), until the server ends it. Never rate-limited.

        silence: seconds without a byte after which the connection counts as dead. Raises ApiError, at once where the
        server refuses: what is returned is open.
        """
        response = self._send("GET", path, {**query, "watch": "true"}, None, "", "application/json", silence, "WATCH")
        if response.status >= 400:
            self._data(response)
        return self._events(response, shape)

    def _events(self, response: urllib3.BaseHTTPResponse, shape: Any) -> Iterator[tuple[str, Body]]:
        try:
            rest = b""
            while chunk := response.read1(2**16):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    kind, body = _read(shapes.read_event, line, shape)
                    if kind == "ERROR":
                        raise _error(int(body.get("code") or 500), json.dumps(body).encode())
                    yield kind, body
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(0, "Unreachable", f"{self.host}: {error}") from None
        finally:
            response.close()

    def _data(self, response: urllib3.BaseHTTPResponse) -> bytes:
        """The whole answer. Raises ApiError where it is a refusal."""
        try:
            data = response.data
        except urllib3.exceptions.HTTPError as error:
            raise ApiError(0, "Unreachable", f"{self.host}: {error}") from None
        finally:
            response.release_conn()
        if response.status >= 400:
            raise _error(response.status, data)
        return data

    def _send(
        self, method: str, path: str, query: Any, body: Any, content: str, accept: str, timeout: float, verb: str
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": accept, "User-Agent": self._agent}
        if body is not None:
            headers["Content-Type"] = content
        settings = ["BearerToken"]
        self._client.update_params_for_auth(headers, [], settings, path, method, body)
        url = f"{self.host}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            response = self._client.rest_client.pool_manager.request(
                method,
                url,
                headers=headers,
                body=None if body is None else json.dumps(body).encode(),
                timeout=urllib3.Timeout(connect=min(timeout, self._timeout), read=timeout),
                preload_content=False,
                retries=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self._counted(verb, 0)
            raise ApiError(0, "Unreachable", f"{self.host} is not reachable: {error}") from None
        self._counted(verb, response.status)
        return response


def _read(read: Callable[[bytes, Any], Found], data: bytes, shape: Any) -> Found:
    try:
        return read(data, shape)
    except ValueError as error:
        raise ApiError(0, "NoJson", f"the API server's answer cannot be read: {error}: {data[:80]!r}") from None


def _json(data: bytes) -> Body:
    try:
        return dict(json.loads(data))
    except (ValueError, TypeError):
        raise ApiError(0, "NoJson", f"the API server answered no JSON object: {data[:80]!r}") from None


def _error(code: int, data: bytes) -> ApiError:
    """The error that a Status object describes."""
    try:
        status = dict(json.loads(data))
    except (ValueError, TypeError):
        status = {"message": data[:200].decode(errors="replace").strip()}
    kind = {404: NotFound, 409: Conflict, 410: Gone}.get(code, ApiError)
    return kind(code, str(status.get("reason") or code), str(status.get("message") or f"HTTP {code}"))


def configuration(kubeconfig: str | None) -> tuple[Configuration, str]:
    """How to reach the API server, and the namespace that this process counts as its own.

    kubeconfig: a file for use outside of a cluster; None: the pod's service account. Raises ConfigError.
    """
    from kubernetes.config import list_kube_config_contexts
    from kubernetes.config.config_exception import ConfigException

    made = Configuration()
    try:
        if kubeconfig is None:
            load_incluster_config(client_configuration=made)
            with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace") as file:
                return made, file.read().strip()
        load_kube_config(kubeconfig, client_configuration=made)
        context = list_kube_config_contexts(kubeconfig)[1]
        return made, str((context.get("context") or {}).get("namespace") or "default")
    except (ConfigException, OSError, ValueError, TypeError, KeyError) as error:
        where = kubeconfig or "the pod's service account"
        remedy = "run it in a pod with a service account, or name a file with --kubeconfig"
        raise ConfigError([Problem("kubeconfig", f"{where} cannot be used: {error}", remedy)]) from None


def own_name() -> str:
    """Name of this host: in a pod, the pod's."""
    return socket.gethostname()
