"""`ltx2 doctor`: what of this machine, its installation and its surroundings stands in the way of a training.

Everything is looked at, nothing is changed. Each area waits for an answer at most a few seconds, so that a machine
without a network is told so at once.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ltx2_operator.doctor import host
from ltx2_operator.doctor.cluster import ask_cluster
from ltx2_operator.doctor.finding import Finding
from ltx2_operator.doctor.hub import ask_hub
from ltx2_operator.doctor.installed import ask_job, codecs, versions


def examine(workspace: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Every finding, in the order in which a person would ask, each as soon as it is known."""
    facts, job = ask_job(environ)
    yield from versions(facts)
    yield from job
    error = facts.torch.get("error")
    if error:
        yield Finding("torch", "fix", f"torch cannot be imported: {error}", "install it anew (docs/install.md)")
    looks: tuple[Callable[[], list[Finding]], ...] = (
        lambda: host.gpu(facts, environ),
        lambda: codecs(facts),
        host.cores,
        host.memory,
        lambda: host.disk(workspace),
        host.temporary,
        host.shared_memory,
        lambda: ask_hub(environ),
        lambda: ask_cluster(environ),
    )
    for look in looks:
        yield from look()
