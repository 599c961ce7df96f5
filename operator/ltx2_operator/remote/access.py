"""A cluster as kubectl finds it, and its trainings."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from kubernetes.client import Configuration
from kubernetes.config import ConfigException, list_kube_config_contexts, load_kube_config
from yaml import YAMLError

from ltx2_job.errors import AuthError, ConfigError, JobError, NoInputError, Problem, UnavailableError
from ltx2_operator.fields import API_VERSION, PLURAL
from ltx2_operator.runtime.bucket import TokenBucket
from ltx2_operator.runtime.client import MERGE, Api, ApiError, Body, Conflict, NotFound
from ltx2_operator.waiting import with_remedy

TIMEOUT: Final = 30.0  # seconds for one request
LOCAL: Final = Path("runs")


@dataclass(frozen=True)
class Cluster:
    """One API server and the namespace that a command means."""

    api: Api
    configuration: Configuration
    namespace: str

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Body:
        """Read an object or a list. Raises NotFound, AuthError, UnavailableError."""
        return self._ask("GET", path, query)

    def create(self, path: str, body: Body) -> Body:
        """Create an object. Raises Conflict, NotFound, AuthError, UnavailableError."""
        return self._ask("POST", path, body=body)

    def patch(self, path: str, body: Body) -> Body:
        """Merge into an object. Raises Conflict, NotFound, ConfigError, AuthError, UnavailableError."""
        return self._ask("PATCH", path, body=body, content=MERGE)

    def delete(self, path: str, body: Body) -> None:
        """Delete an object; that it is gone already is as well. Raises AuthError, UnavailableError."""
        try:
            self._ask("DELETE", path, body=body)
        except NotFound:
            return

    def _ask(self, method: str, path: str, query: Mapping[str, Any] | None = None, **options: Any) -> Body:
        try:
            return self.api.request(method, path, query, **options).body
        except (NotFound, Conflict):
            raise
        except ApiError as error:
            raise _told(error) from None


def _told(error: ApiError) -> JobError:
    """What the API server refuses, as a line for a user."""
    if error.code == 401:
        return AuthError(f"{error}; log in again (the credentials of the kubeconfig may have expired)")
    if error.code == 403 and "cannot" in str(error):
        return AuthError(f"{error}; ask for the role ltx2-operator-editor in this namespace, or use --namespace")
    if error.code == 422:
        return ConfigError(Problem("the API server", str(error)))
    if error.code:
        return UnavailableError(with_remedy(str(error)))
    return UnavailableError(f"{error}; is the VPN up, is the address right?")


def connect(kubeconfig: Path | None, context: str | None, namespace: str | None) -> Cluster:
    """The cluster of a kubeconfig (of KUBECONFIG, or ~/.kube/config), a context (the current one) and its namespace.

    Raises ConfigError.
    """
    configuration, file = Configuration(), None if kubeconfig is None else str(kubeconfig)
    try:
        load_kube_config(file, context=context, client_configuration=configuration)
        contexts, current = list_kube_config_contexts(file)
    except (ConfigException, YAMLError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        where = f"--kubeconfig {file}" if file else "kubeconfig"
        remedy = "name a file with --kubeconfig or KUBECONFIG, and one of its contexts with --context"
        raise ConfigError(Problem(where, f"no cluster can be reached: {str(error).splitlines()[0]}", remedy)) from None
    chosen = next((one for one in contexts if one["name"] == context), current)
    named = namespace or (chosen.get("context") or {}).get("namespace") or "default"
    api = Api(configuration, TokenBucket(20.0, 40), timeout=TIMEOUT, connections=2, agent="ltx2")
    return Cluster(api, configuration, str(named))


def core(cluster: Cluster, plural: str, name: str = "") -> str:
    """Path of a resource of core/v1 in the cluster's namespace."""
    return f"/api/v1/namespaces/{cluster.namespace}/{plural}" + (f"/{name}" if name else "")


def training_path(cluster: Cluster, name: str = "") -> str:
    """Path of a training, or of all in the namespace."""
    return f"/apis/{API_VERSION}/namespaces/{cluster.namespace}/{PLURAL}" + (f"/{name}" if name else "")


def training(cluster: Cluster, name: str) -> Body:
    """The object of a training. Raises NoInputError with the nearest names, AuthError, UnavailableError."""
    try:
        return cluster.get(training_path(cluster, name))
    except NotFound:
        pass
    try:
        names = [one["metadata"]["name"] for one in cluster.get(training_path(cluster))["items"]]
    except NotFound:
        raise NoInputError(
            f"{cluster.api.host}: this cluster knows no LTX2Training; install the operator, or choose another --context"
        ) from None
    near = get_close_matches(name, names, n=3, cutoff=0.5) or sorted(names)[:5]
    others = f"; there: {', '.join(near)}" if near else "; there is none in it"
    here = f"; {LOCAL / name} is a run of this machine: its files are here already" if (LOCAL / name).is_dir() else ""
    raise NoInputError(
        f"{name}: no such training in namespace {cluster.namespace}{others}{here}; see `kubectl get ltx2 -A`"
    )
