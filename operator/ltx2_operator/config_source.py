"""spec.configFrom: the guide's files in a ConfigMap, for those who keep files.

A training reads them as if they were pasted, until its first attempt: from then on it keeps to what that attempt was
given, which lies in the ConfigMap that the operator made (status.configMap). What a user changes later is told, and
does not matter.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ltx2_job import strict_json
from ltx2_job.errors import ConfigError, Problem

FIELD: Final = "spec.configFrom"
DEFAULT_KEY: Final = "config.json"


class NotThere(ConfigError):
    """The ConfigMap or one of its keys does not exist; it may come."""


def wanted_configmaps(obj: Mapping[str, Any]) -> list[str]:
    """Names of the ConfigMaps, in the training's namespace, that a look needs to see; none where all is pasted."""
    source = _source(obj)
    if source is None:
        return []
    locked = _mapping(obj.get("status")).get("configMap")
    return [str(name) for name in (source.get("name"), locked) if name]


def inlined(obj: Mapping[str, Any], configmaps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The object as if the files were pasted; as it is where it has no configFrom.

    Raises NotThere, and ConfigError for files that are no JSON of the right form.
    """
    source = _source(obj)
    if source is None or obj["spec"].get("config") is not None:
        return dict(obj)  # with both, its own model says what is wrong
    status = _mapping(obj.get("status"))
    locked = _find(configmaps, status.get("configMap")) if status.get("attempt") else None
    if locked is not None:
        config, datasets = (_read(locked, key, form) for key, form in (("config.json", dict), ("datasets.json", list)))
        return _pasted(obj, config, datasets)
    return _from_source(obj, source, configmaps)


def of_today(obj: Mapping[str, Any], configmaps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The object with what the user's ConfigMap says now, whatever its attempts were given. Raises as `inlined`."""
    source = _source(obj)
    return dict(obj) if source is None else _from_source(obj, source, configmaps)


def _from_source(
    obj: Mapping[str, Any], source: Mapping[str, Any], configmaps: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    name = source.get("name")
    found = _find(configmaps, name)
    if found is None:
        remedy = f"create it: kubectl create configmap {name} --from-file={source.get('key') or DEFAULT_KEY}"
        raise NotThere(Problem(f"{FIELD}.name", f"there is no ConfigMap {name}", remedy))
    config = _read(found, str(source.get("key") or DEFAULT_KEY), dict)
    datasets = None
    if key := source.get("datasetsKey"):
        if obj["spec"].get("datasets") is not None:
            raise ConfigError(Problem(f"{FIELD}.datasetsKey", "spec.datasets is set, too", "remove one of the two"))
        datasets = _read(found, str(key), list)
    return _pasted(obj, config, datasets)


def _pasted(obj: Mapping[str, Any], config: Any, datasets: Any) -> dict[str, Any]:
    spec = {key: value for key, value in obj["spec"].items() if key != "configFrom"}
    return {**obj, "spec": {**spec, "config": config, **({} if datasets is None else {"datasets": datasets})}}


def _read(configmap: Mapping[str, Any], key: str, form: type) -> Any:
    """One file of a ConfigMap."""
    name, data = configmap["metadata"]["name"], _mapping(configmap.get("data"))
    where = f"{FIELD}: ConfigMap {name}, {key}"
    if key not in data:
        there = f"it has {', '.join(sorted(data))}" if data else "it is empty"
        raise NotThere(
            Problem(f"{FIELD}: ConfigMap {name}", f"has no key {key}; {there}", "write another key, or add it")
        )
    try:
        value = strict_json.loads(data[key])
    except strict_json.BadJson as error:
        raise ConfigError(Problem(where, f"line {error.line}: {error.message}", "write JSON")) from None
    if not isinstance(value, form):
        wanted = "one object: { … }" if form is dict else "a list: [ … ]"
        raise ConfigError(Problem(where, f"is no {form.__name__}", f"write {wanted}"))
    return value


def _source(obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return _mapping(_mapping(obj.get("spec")).get("configFrom")) or None


def _find(configmaps: Sequence[Mapping[str, Any]], name: Any) -> Mapping[str, Any] | None:
    return next((one for one in configmaps if one["metadata"]["name"] == name), None)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
