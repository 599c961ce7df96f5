"""What is kept of each kind of object. All else is skipped while its JSON is read, before it costs time or memory.

A list of pods is mostly specs, environment variables and managedFields that nobody looks at; a reader that built them
first would need several times the memory. A value is whatever it is: what is wrong with it is said by reconcile.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypedDict

import msgspec

from ltx2_operator.between import UPLOADED
from ltx2_operator.pods import ATTEMPT_LABEL, STAGE_LABEL, TRAINING_LABEL, UID_LABEL
from ltx2_operator.runtime.departed import INDEX_LABEL, JOB_UID_LABEL

Body = dict[str, Any]
SHARED_MOST: Final = 256  # characters of a text that is kept once: longer ones are hardly ever equal


def _only(name: str, keys: Iterable[str], **parts: Any) -> Any:
    """A dict of these keys, as far as they are there; parts: keys with a shape of their own."""
    return TypedDict(name, {**dict.fromkeys(keys, Any), **parts}, total=False)  # type: ignore[operator]


_OBJECT = ("kind", "apiVersion")
_METADATA = (
    "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp",
    "deletionGracePeriodSeconds",
)  # fmt: skip
_LABELS = (TRAINING_LABEL, STAGE_LABEL, ATTEMPT_LABEL, UID_LABEL, JOB_UID_LABEL, INDEX_LABEL)
_Labels: Any = _only("_Labels", _LABELS)
# kubectl leaves a copy of the whole object in its annotation.
_Annotations: Any = _only("_Annotations", (UPLOADED,))
_Child: Any = _only("_Child", _METADATA, labels=_Labels | None)


@dataclass(frozen=True)
class Open:
    """An object of which all is kept but parts of its metadata: a key that nobody knows is for reconcile to name."""

    metadata: Any


Training = Open(_only("_Own", _METADATA, annotations=_Annotations | None))
# A Job's template is a copy of what the operator sent.
Job = _only("Job", (*_OBJECT, "status"), metadata=_Child, spec=_only("_JobSpec", ("parallelism", "suspend")))
_Resources: Any = _only("_Resources", ("requests", "limits"))  # messages name what was asked for, and limits reached
_Container: Any = _only("_Container", ("name", "restartPolicy"), resources=_Resources)
_State: Any = _only("_State", ("name", "image", "state"))
_Condition: Any = _only("_Condition", ("type", "status", "reason", "message"))
# Of a pod's spec, only where it may run and runs, how long it may take to leave, and what limits its containers.
Pod = _only(
    "Pod", _OBJECT, metadata=_Child,
    spec=_only(
        "_PodSpec", ("nodeName", "tolerations", "terminationGracePeriodSeconds", "overhead"),
        containers=list[_Container] | None, initContainers=list[_Container] | None,
    ),
    status=_only(
        "_PodStatus", ("phase", "reason", "message", "podIP"), conditions=list[_Condition] | None,
        initContainerStatuses=list[_State] | None, containerStatuses=list[_State] | None,
    ),
)  # fmt: skip
Node = _only(
    "Node", (*_OBJECT, "spec"), metadata=_only("_NodeMetadata", _METADATA, labels=Any),
    status=_only("_NodeStatus", ("allocatable", "capacity", "conditions")),
)  # fmt: skip


class _List(TypedDict, total=False):
    items: list[msgspec.Raw] | None
    metadata: Any


class _Event(TypedDict, total=False):
    type: str
    object: msgspec.Raw


# Built while the module is loaded, by one thread: two that build decoders with a part in common can end the process
# (a segmentation fault of msgspec 0.22: one takes the other's part before all of its fields are there).
_PLAIN: Final = (Any, Body, dict[str, msgspec.Raw])
_DECODERS: Final[Mapping[Any, "msgspec.json.Decoder[Any]"]] = {
    shape: msgspec.json.Decoder(shape) for shape in (*_PLAIN, Training.metadata, Job, Pod, Node, _List, _Event)
}


def read_list(data: bytes, shape: Any) -> tuple[list[Body], Body]:
    """The items of a list, and its own metadata. Raises ValueError."""
    found = _DECODERS[_List].decode(data)
    return [_shared(_decoded(item, shape)) for item in found.get("items") or []], found.get("metadata") or {}


def read_event(line: bytes, shape: Any) -> tuple[str, Body]:
    """Kind and object of one line of a watch; the object of an ERROR is whole. Raises ValueError."""
    found = _DECODERS[_Event].decode(line)
    kind = found.get("type", "")
    body = _decoded(found.get("object") or b"{}", Body if kind == "ERROR" else shape)
    return kind, _shared(body)


def _decoded(data: "msgspec.Raw | bytes", shape: Any) -> Body:
    if isinstance(shape, Open):
        parts = _DECODERS[dict[str, msgspec.Raw]].decode(data)
        return {key: _DECODERS[shape.metadata if key == "metadata" else Any].decode(raw) for key, raw in parts.items()}
    found: Body = _DECODERS[shape].decode(data)
    return found


def kept(body: Body, shape: Any) -> Body:
    """What a list or watch would have kept of an object. Raises ValueError."""
    if isinstance(shape, Open):
        return _shared({**body, "metadata": msgspec.convert(body.get("metadata") or {}, shape.metadata)})
    found: Body = msgspec.convert(body, shape)
    return _shared(found)


def _shared(body: Body) -> Body:
    """Let equal texts be one: thousands of objects say the same in most places, which would be half of the memory."""
    for key, value in body.items():
        body[key] = _once(value)
    return body


@lru_cache(maxsize=2**16)
def _the_one(text: str) -> str:
    """The first of the equal texts that were met lately; sys.intern, which Python 3.12 never frees, would keep all."""
    return text


def _once(value: Any) -> Any:
    if isinstance(value, str):
        return _the_one(value) if len(value) <= SHARED_MOST else value
    if isinstance(value, dict):
        return _shared(value)
    if isinstance(value, list):
        value[:] = map(_once, value)
    return value
