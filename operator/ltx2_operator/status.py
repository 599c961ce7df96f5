"""The status of an LTX2Training: what the operator knows, written as the API server takes it.

Texts are cut and figures become strings on the way in, so that no status is ever refused for a long message or a float.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from ltx2_operator.fields import Bytes, Count, Figure, Int32, Int64, Message, Model, Opaque, Sentence, Time, Word

LAST_ATTEMPTS = 10
AVOIDED_NODES = 8


class StatusModel(Model):
    """Read what another version of the operator wrote: unknown keys are dropped, not refused."""

    model_config = ConfigDict(extra="ignore")


class Plan(StatusModel):
    """What one stage gets: GPU class, memory plan, and the pod's resources per node."""

    stage: Literal["look", "cache", "train"] = Field(description="Stage that this plan is for.")
    gpu_class: Word = Field(description="GPU class by name.")
    device: Literal["cpu", "cuda"] = Field(description="Device that the job computes on (ROCm answers to cuda too).")
    vendor: Literal["nvidia", "amd", "none"] = Field(description="Maker of the GPU.")
    resource_name: Annotated[str, Field(max_length=253)] | None = Field(
        default=None, description="Extended resource that a pod asks for."
    )
    gpu_count: Count = Field(description="GPUs per node.")
    nodes: Int32 = Field(default=1, description="Nodes.")
    processes: Int32 = Field(default=1, description="Processes per node.")
    flavour: Literal["cuda", "rocm", "cpu"] = Field(description="Image flavour.")
    memory: Word = Field(description="Memory plan of training by name.")
    cache_memory: Literal["device", "cpu"] = Field(
        default="device", description="Where VAE and text encoder run in the cache stage."
    )
    cpu_milli: Int32 = Field(description="CPU, in thousandths of a core.")
    memory_bytes: Bytes = Field(description="Host memory, /dev/shm included.")
    shm_bytes: Bytes = Field(description="Size of /dev/shm.")
    ephemeral_bytes: Bytes = Field(description="Scratch disk of the pod.")
    volume_bytes: Bytes = Field(description="Predicted need on the volume.")
    predicted_peak_bytes: Bytes = Field(
        description="Predicted peak of memory on the device: all that nvidia-smi shows of the process."
    )
    predicted_seconds_per_step: Figure | None = Field(
        default=None, description="Predicted seconds of one optimizer step."
    )
    terms: dict[str, Bytes] = Field(
        default_factory=dict,
        description="The predicted peak by part.",
        json_schema_extra={"maxProperties": 40, "x-kubernetes-map-type": "atomic"},  # else emptying it leaves null
    )
    corrections: list[Sentence] = Field(
        default_factory=list,
        max_length=50,
        description="What was changed of the configuration as it was written; the job tells it in its log.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


class Condition(StatusModel):
    """One condition, as Kubernetes writes them."""

    type: Annotated[str, Field(max_length=63)] = Field(description="Name of the condition.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: Word = Field(description="One word why.")
    message: Message = Field(default="", description="A sentence for people.")
    last_transition_time: Time = Field(description="When status changed.")
    observed_generation: Annotated[Int64, Field(ge=0)] | None = Field(
        default=None, description="Generation it was decided on."
    )


class Progress(StatusModel):
    """The newest numbers of the training; history is on the volume and in the metrics."""

    step: Count = Field(default=0, description="Optimizer steps done.")
    max_steps: Count = Field(default=0, description="Optimizer steps in all.")
    loss: Figure | None = Field(default=None, description="Training loss.")
    held_out_loss: Figure | None = Field(default=None, description="Loss on the held-out clips.")
    seconds_per_step: Figure | None = Field(default=None, description="Seconds per optimizer step.")
    eta_seconds: Count | None = Field(default=None, description="Seconds to the end.")
    time: Time | None = Field(default=None, description="When these were read.")


class CheckpointStatus(StatusModel):
    """The newest complete checkpoint."""

    step: Count = Field(description="Optimizer step.")
    path: Annotated[str, Field(max_length=1024)] = Field(default="", description="Folder under the workspace.")
    time: Time | None = Field(default=None, description="When it was complete.")


class Verdict(StatusModel):
    """How an attempt ended and what followed."""

    attempt: Count = Field(description="Number of the attempt.")
    stage: Word = Field(description="Stage that ended.")
    action: Word = Field(description="What the operator did.")
    reason: Word = Field(description="One word why.")
    exit_code: Int32 | None = Field(default=None, description="Exit code of the deciding container, when it is known.")
    message: Message = Field(default="", description="A sentence for people.")
    nodes: list[Annotated[str, Field(max_length=253)]] = Field(
        default_factory=list,
        max_length=16,
        description="Nodes on which it crashed; none where the end says nothing about a node.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    time: Time | None = Field(default=None, description="When it was decided.")


class GpuSeconds(StatusModel):
    """What a run cost: seconds times GPUs, over all attempts, as of the last change of state."""

    used: Annotated[Int64, Field(ge=0)] = Field(default=0, description="While the pods ran.")
    lost: Annotated[Int64, Field(ge=0)] = Field(
        default=0, description="Of those, after the last checkpoint of an attempt that did not finish."
    )
    queued: Annotated[Int64, Field(ge=0)] = Field(default=0, description="While a queue or missing nodes held it.")


class Rung(StatusModel):
    """How far down the ladders of memory plans this run has gone; 0 is the plan chosen first."""

    train: Count = Field(default=0, description="Rung of the train stage.")
    cache: Count = Field(default=0, description="Rung of the cache stage.")


class Status(StatusModel):
    """What the operator knows. Conditions are the truth; the ready-made words are for kubectl's columns."""

    observed_generation: Annotated[Int64, Field(ge=0)] | None = Field(
        default=None, description="Generation of the spec last looked at."
    )
    state: Word | None = Field(default=None, description="One word for the state, derived from the conditions.")
    reason: Word | None = Field(default=None, description="One word why it is in that state.")
    stage: Word | None = Field(default=None, description="Look (is the data there?), Cache or Train.")
    attempt: Count = Field(default=0, description="Number of the newest attempt; never falls.")
    execution: Count = Field(default=0, description="Starts in all, resumptions by a queue included.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Conditions by type.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    plan: Plan | None = Field(default=None, description="The plan of the train stage.")
    cache_plan: Plan | None = Field(default=None, description="The plan of the cache stage.")
    config_hash: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="SHA-256 of the resolved configuration."
    )
    config_map: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="ConfigMap with the resolved configuration that the attempts were given."
    )
    warnings: list[Sentence] = Field(
        default_factory=list,
        max_length=50,
        description="What was corrected and what to look at.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    progress: Progress | None = Field(default=None, description="The newest numbers.")
    progress_text: Word | None = Field(default=None, description="Step of steps, for the column.")
    eta: Word | None = Field(default=None, description="Time to the end in words, for the column.")
    eta_time: Time | None = Field(default=None, description="Predicted time of the end.")
    gpu: Word | None = Field(default=None, description="GPUs in words, for the column.")
    checkpoint: CheckpointStatus | None = Field(default=None, description="The newest complete checkpoint.")
    job: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="Job of the newest attempt, once it was seen."
    )
    job_uid: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="The uid of that Job: a deletion names it, so that no namesake is hit."
    )
    next_attempt_time: Time | None = Field(default=None, description="When the next attempt may start (back-off).")
    pending_since: Time | None = Field(default=None, description="Since when the newest Job waits for its pods.")
    queued_since: Time | None = Field(default=None, description="Since when a queue or missing pods hold it.")
    running_since: Time | None = Field(default=None, description="Since when its pods run.")
    waits: Count = Field(default=0, description="Looks in a row that found no data.")
    data_uploaded: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="The annotation ltx2.dev/data-uploaded that the last look acted on."
    )
    avoid_nodes: list[Annotated[str, Field(max_length=253)]] = Field(
        default_factory=list,
        max_length=AVOIDED_NODES,
        description="Nodes that later pods keep away from: attempts crashed there twice.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    failed_retries: Count | None = Field(
        default=None, description="spec.retries when the run failed; a higher value reopens it."
    )
    uncounted_step: Count = Field(default=0, description="Step of the newest checkpoint when the uncounted row began.")
    failures: Count = Field(default=0, description="Attempts that counted against spec.retries.")
    uncounted: Count = Field(default=0, description="Uncounted attempts in a row without a newer checkpoint.")
    rung: Rung = Field(default=Rung(), description="Rungs of the memory ladders.")
    cache_ready: bool = Field(default=False, description="The cache stage has finished for this configuration.")
    start_time: Time | None = Field(default=None, description="First start.")
    completion_time: Time | None = Field(default=None, description="End, good or bad.")
    running_seconds: Annotated[Int64, Field(ge=0)] = Field(
        default=0, description="Seconds of running over all attempts."
    )
    gpu_seconds: GpuSeconds = Field(default=GpuSeconds(), description="What the run cost.")
    last_verdict: Verdict | None = Field(default=None, description="How the newest finished attempt ended.")
    attempts: list[Verdict] = Field(
        default_factory=list,
        max_length=LAST_ATTEMPTS,
        description="How the last attempts ended.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    result: Opaque | None = Field(default=None, description="Paths and figures of a finished run.")
