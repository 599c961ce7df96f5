"""Strategic merge patches of a pod template, each with a name: what a user may write under spec.podTemplate."""

from typing import Any

TOLERATION = {"key": "team", "operator": "Equal", "value": "ml", "effect": "NoSchedule"}


def container(**changed: Any) -> dict[str, Any]:
    """A patch of the job's container."""
    return {"spec": {"containers": [{"name": "job", **changed}]}}


PATCHES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a label and an annotation": {"metadata": {"labels": {"team": "ml"}, "annotations": {"a/b": "c"}}},
    "an annotation away": {"metadata": {"annotations": {"note": None}}},
    "a null that meets nothing": {"metadata": {"annotations": {"none": None}}, "spec": {"nodeSelector": None}},
    "a node selector": {"spec": {"nodeSelector": {"zone": "a"}, "schedulerName": "other"}},
    "a scalar": {"spec": {"priorityClassName": "high", "terminationGracePeriodSeconds": 45}},
    "a list that is replaced": {"spec": {"tolerations": [TOLERATION]}},
    "a list that is emptied": {"spec": {"tolerations": []}},
    "arguments are replaced": container(args=["other"]),
    "an image by container name": container(image="other:1"),
    "a new container stands first": {"spec": {"containers": [{"name": "side", "image": "side:1"}]}},
    "two new containers around ours": {
        "spec": {
            "containers": [
                {"name": "side", "image": "s:1"},
                {"name": "job", "image": "j:1"},
                {"name": "last", "image": "l:1"},
            ]
        }
    },
    "an init container": {"spec": {"initContainers": [{"name": "wait", "image": "w:1", "restartPolicy": "Always"}]}},
    "a variable changes": container(env=[{"name": "TMPDIR", "value": "/scratch"}]),
    "a variable more": container(env=[{"name": "NEW", "value": "1"}]),
    "variables in another order": container(
        env=[{"name": "LAST", "value": "1"}, {"name": "TMPDIR", "value": "/x"}, {"name": "NCCL_DEBUG", "value": "INFO"}]
    ),
    "a variable goes": container(env=[{"name": "TMPDIR", "$patch": "delete"}]),
    "a variable that is not there goes": container(env=[{"name": "ABSENT", "$patch": "delete"}]),
    "one goes and one comes": container(env=[{"name": "TMPDIR", "$patch": "delete"}, {"name": "B", "value": "2"}]),
    "all variables are replaced": container(env=[{"$patch": "replace"}, {"name": "ONLY", "value": "1"}]),
    "a value becomes a reference": container(
        env=[{"name": "TMPDIR", "value": None, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    ),
    "a volume more, mounted": {
        "spec": {
            "volumes": [{"name": "fast", "emptyDir": {}}],
            "containers": [{"name": "job", "volumeMounts": [{"name": "fast", "mountPath": "/fast"}]}],
        }
    },
    "a mount by its path": container(volumeMounts=[{"mountPath": "/tmp", "name": "shm"}]),
    "a mount goes": container(volumeMounts=[{"mountPath": "/tmp", "$patch": "delete"}]),
    "a volume's size": {"spec": {"volumes": [{"name": "shm", "emptyDir": {"sizeLimit": "2Gi"}}]}},
    "a volume of another kind": {
        "spec": {"volumes": [{"name": "tmp", "$retainKeys": ["name", "emptyDir"], "emptyDir": {"medium": "Memory"}}]}
    },
    "a volume of quite another kind": {
        "spec": {"volumes": [{"name": "tmp", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/scratch"}}]}
    },
    "a volume replaced by null": {
        "spec": {"volumes": [{"name": "tmp", "emptyDir": None, "secret": {"secretName": "x"}}]}
    },
    "ports by their number": container(ports=[{"containerPort": 9464, "name": "other"}, {"containerPort": 8080}]),
    "resources": container(resources={"limits": {"memory": "20Gi"}, "requests": {"cpu": "3", "memory": "20Gi"}}),
    "a limit goes": container(resources={"limits": {"ephemeral-storage": None}}),
    "pull secrets by name": {"spec": {"imagePullSecrets": [{"name": "b"}, {"name": "a"}]}},
    "host aliases by address": {"spec": {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["x"]}]}},
    "spread over zones": {
        "spec": {
            "topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]
        }
    },
    "a preference beside our affinity": {
        "spec": {
            "affinity": {
                "nodeAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {
                            "weight": 1,
                            "preference": {"matchExpressions": [{"key": "z", "operator": "In", "values": ["a"]}]},
                        }
                    ]
                }
            }
        }
    },
    "our affinity replaced": {"spec": {"affinity": {"$patch": "replace", "podAntiAffinity": {}}}},
    "our affinity deleted": {"spec": {"affinity": {"$patch": "delete"}}},
    "affinity terms are replaced": {
        "spec": {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
                        ]
                    }
                }
            }
        }
    },
    "security context": {"spec": {"securityContext": {"supplementalGroups": [7], "fsGroup": 7}}},
    "capabilities": container(securityContext={"capabilities": {"add": ["SYS_PTRACE"]}}),
    "a lifecycle hook": container(lifecycle={"preStop": {"exec": {"command": ["true"]}}}),
    "dns": {"spec": {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.2"]}}},
    "the same container twice": {
        "spec": {"containers": [{"name": "job", "image": "a:1"}, {"name": "job", "imagePullPolicy": "Always"}]}
    },
    "an ephemeral claim": {
        "spec": {
            "volumes": [
                {
                    "name": "tmp",
                    "emptyDir": None,
                    "ephemeral": {
                        "volumeClaimTemplate": {
                            "spec": {
                                "accessModes": ["ReadWriteOnce"],
                                "resources": {"requests": {"storage": "1Gi"}},
                            }
                        }
                    },
                }
            ]
        }
    },
}

# What the server refuses in a patch, too: the field that we name.
MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "no merge key": ({"spec": {"containers": [{"image": "x"}]}}, "spec.podTemplate.spec.containers[0]"),
    "no such directive": ({"spec": {"affinity": {"$patch": "erase"}}}, "spec.podTemplate.spec.affinity.$patch"),
    "no such directive in a list": (
        container(env=[{"name": "A", "$patch": "erase"}]),
        "spec.podTemplate.spec.containers[name=job].env[0].$patch",
    ),
    "less retained than written": (
        {"spec": {"volumes": [{"name": "tmp", "$retainKeys": ["name"], "emptyDir": {}}]}},
        "spec.podTemplate.spec.volumes[name=tmp].$retainKeys",
    ),
    "a mapping for a list": ({"spec": {"containers": {"name": "job"}}}, "spec.podTemplate.spec.containers"),
    "a text for a mapping": ({"spec": {"affinity": "none"}}, "spec.podTemplate.spec.affinity"),
    "a text in a list": ({"spec": {"containers": ["job"]}}, "spec.podTemplate.spec.containers[0]"),
}
