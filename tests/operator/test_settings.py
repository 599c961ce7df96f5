"""The settings file of an installation: what it means, and what is said about a wrong one."""

import pytest

from ltx2_job.errors import ConfigError
from ltx2_operator.settings import read_installation


def test_an_empty_file_is_the_defaults():
    installation = read_installation(None)
    assert installation.leader_election.enabled
    assert installation.jobs.images["rocm"].startswith("ltx2/job-rocm:")


def test_every_value_arrives():
    installation = read_installation(
        {
            "watchNamespaces": ["ml", "art"],
            "jobs": {
                "images": {"cpu": "mirror/job:1"},
                "proxy": {"https": "http://proxy:3128"},
                "ca": {"configMap": "ca"},
            },
        }
    )
    assert installation.watch_namespaces == ("ml", "art")
    assert installation.jobs.images == {"cpu": "mirror/job:1"}
    assert installation.jobs.proxy.https == "http://proxy:3128"
    assert installation.jobs.ca is not None and installation.jobs.ca.key == "ca.crt"


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"watchNamespace": ["ml"]}, "watchNamespace: unknown key"),
        ({"watch_namespaces": ["ml"]}, "watch_namespaces: unknown key"),
        ({"jobs": {"graceSeconds": "long"}}, "jobs.graceSeconds: 'long'"),
        ({"api": {"requestsPerSecond": 0}}, "api.requestsPerSecond: 0"),
    ],
)
def test_a_wrong_value_is_named(document, field):
    with pytest.raises(ConfigError) as error:
        read_installation(document)
    assert field in str(error.value)
