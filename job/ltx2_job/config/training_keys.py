"""The keys of config.json that say how it is trained: batches, schedule, optimizer, noise, loss, regularisers."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from ltx2_job.config import names
from ltx2_job.config.keys import GUIDE, OFFICIAL, OURS, key, later
from ltx2_job.config.values import Bool, Float, Int, JsonValue, Text, one_of

_NOISE = "noise levels are the official shifted logit-normal, or flow_schedule_shift; other schedules come later"
_LOSS = "the loss is the official mean squared error; others come later"
_EMA = "averaged weights come later"
_CREPA = "CREPA comes later"
_ROLLOUT = "scheduled sampling comes later"
_CONDITIONING = "conditioning beyond the first frame comes later"


def _zero_is_unset(shift: float | None) -> float | None:
    return shift or None


def _steps(fields: dict[str, Any]) -> int:
    return 0 if fields.get("num_train_epochs") else 2000


def _scheduler(fields: dict[str, Any]) -> str:
    return "constant_with_warmup" if fields.get("lr_warmup_steps") else "constant"


class OptimisationKeys(BaseModel):
    """Batches, steps, learning rate and optimizer."""

    model_config = ConfigDict(defer_build=True, protected_namespaces=())

    train_batch_size: Int = key(1, "clips per GPU and micro-batch", OFFICIAL, ge=1)
    gradient_accumulation_steps: Int = key(1, "micro-batches per optimizer step", OFFICIAL, ge=1)
    num_train_epochs: Int = key(0, "passes over the data; 0: count in steps", OURS, ge=0)
    max_train_steps: Int = key(_steps, "optimizer steps; 2000 unless num_train_epochs is set", OFFICIAL, ge=0, le=10**9)
    learning_rate: Float = key(
        1e-4, "learning rate after warm-up; 0 trains nothing, for trying things out", OFFICIAL, ge=0
    )
    lr_warmup_steps: Int = key(0, "optimizer steps of linear warm-up", OFFICIAL, ge=0)
    lr_scheduler: Annotated[str, one_of(names.SCHEDULERS, names.SCHEDULER_ALIASES)] = key(
        _scheduler, "shape of the learning rate; constant, with warm-up where lr_warmup_steps is set", OURS
    )
    lr_end: Float = key(4e-7, "last learning rate of polynomial", GUIDE, ge=0)
    lr_power: Float = key(0.8, "exponent of polynomial", GUIDE, gt=0)
    lr_num_cycles: Int = key(1, "cycles of cosine_with_restarts and waves of sine", GUIDE, ge=1)
    optimizer: Annotated[str, one_of(names.OPTIMIZERS, names.OPTIMIZER_ALIASES)] = key(
        "adamw",
        "`adamw` (also `torch-adamw`; fp32) or `adamw_bf16` (bf16 with stochastic rounding); `deepspeed-adamw` is not "
        "offered",
        OFFICIAL,
        values=names.OPTIMIZERS_LATER,
    )
    optimizer_config: Text | None = later(
        None, "further settings k=v,k=v", "use adam_beta1, adam_beta2, adam_epsilon, adam_weight_decay"
    )
    adam_beta1: Float = key(0.9, "decay of the first moment", OFFICIAL, ge=0, lt=1)
    adam_beta2: Float = key(0.999, "decay of the second moment", OFFICIAL, ge=0, lt=1)
    adam_epsilon: Float = key(1e-8, "added to the root of the second moment", OFFICIAL, gt=0)
    adam_weight_decay: Float = key(0.01, "decoupled weight decay", OFFICIAL, ge=0)
    max_grad_norm: Float = key(
        1.0, "limit of the gradient, in the sense of grad_clip_method; 0: no clipping", OFFICIAL, ge=0
    )
    grad_clip_method: Literal["norm", "value"] = key(
        "norm", "`norm`: scale the whole gradient to max_grad_norm; `value`: clamp every element to it", OFFICIAL
    )
    use_ema: Bool = later(False, "keep averaged weights", _EMA)
    ema_decay: Float = later(0.995, "decay of the average", _EMA, part_of="use_ema", ge=0, le=1)
    ema_update_interval: Int | None = later(None, "steps between updates", _EMA, part_of="use_ema")
    ema_device: Literal["cpu", "accelerator"] = later("cpu", "where the average lies", _EMA, part_of="use_ema")


class ObjectiveKeys(BaseModel):
    """Noise, target, loss and conditioning."""

    model_config = ConfigDict(defer_build=True, protected_namespaces=())

    flow_schedule_shift: Annotated[Float | None, AfterValidator(_zero_is_unset)] = key(
        None, "static shift of the noise level; unset or 0: the official shift by token count", OFFICIAL, ge=0
    )
    flow_sigmoid_scale: Float = later(1.0, "scale of the logit-normal", _NOISE)
    flow_use_uniform_schedule: Bool = later(False, "uniform noise levels", _NOISE)
    flow_use_beta_schedule: Bool = later(False, "noise levels from a beta distribution", _NOISE)
    flow_beta_schedule_alpha: Float = later(2.0, "its alpha", _NOISE, part_of="flow_use_beta_schedule")
    flow_beta_schedule_beta: Float = later(2.0, "its beta", _NOISE, part_of="flow_use_beta_schedule")
    flow_custom_timesteps: Text | None = later(None, "list of noise levels", _NOISE)
    input_perturbation: Float = later(0.0, "further noise on the input", _NOISE)
    loss_type: Literal["l2", "huber", "smooth_l1"] = later("l2", "form of the loss", _LOSS)
    huber_c: Float = later(0.1, "threshold of huber", _LOSS, part_of="loss_type")
    huber_schedule: Literal["snr", "exponential", "constant"] = later(
        "snr", "threshold by noise level", _LOSS, part_of="loss_type"
    )
    audio_loss_weight: Float = key(
        1.0, "weight of the audio loss beside the video loss; 0: audio is not trained", OFFICIAL, ge=0
    )
    ltx2_first_frame_conditioning_probability: Float = key(
        0.1,
        "share of samples whose first latent frame is given (image to video); 0: text to video only",
        OFFICIAL,
        ge=0,
        le=1,
    )
    ltx2_prefix_conditioning_probability: Float = later(
        0.0, "share of samples with the first N latent frames given", _CONDITIONING, ge=0, le=1
    )
    ltx2_suffix_conditioning_probability: Float = later(
        0.0, "share of samples with the last N latent frames given", _CONDITIONING, ge=0, le=1
    )
    ltx2_prefix_conditioning_frames: Int = later(
        1, "its N", _CONDITIONING, part_of="ltx2_prefix_conditioning_probability", ge=1
    )
    ltx2_suffix_conditioning_frames: Int = later(
        1, "its N", _CONDITIONING, part_of="ltx2_suffix_conditioning_probability", ge=1
    )
    ltx2_mask_conditioning_probability: Float = later(
        0.0, "share of samples with a mask's cells given", _CONDITIONING, ge=0, le=1
    )


class RegulariserKeys(BaseModel):
    """TREAD, CREPA and scheduled sampling."""

    model_config = ConfigDict(defer_build=True, protected_namespaces=())

    tread_config: JsonValue | None = later(
        None, "TREAD: routes that skip tokens between two blocks", "TREAD comes later"
    )
    crepa_enabled: Bool = later(False, "CREPA: align hidden states with a vision encoder over time", _CREPA)
    crepa_block_index: Int | None = later(None, "block whose output is aligned", _CREPA, part_of="crepa_enabled")
    crepa_lambda: Float = later(0.5, "weight", _CREPA, part_of="crepa_enabled")
    crepa_adjacent_distance: Int = later(1, "distance of the neighbour frames", _CREPA, part_of="crepa_enabled")
    crepa_adjacent_tau: Float = later(1.0, "decay over that distance", _CREPA, part_of="crepa_enabled")
    crepa_cumulative_neighbors: Bool = later(False, "all distances up to that one", _CREPA, part_of="crepa_enabled")
    crepa_encoder: Text | None = later(None, "vision encoder", _CREPA, part_of="crepa_enabled")
    crepa_encoder_image_size: Int = later(518, "its image size", _CREPA, part_of="crepa_enabled")
    crepa_encoder_frames_batch_size: Int = later(-1, "frames encoded at once", _CREPA, part_of="crepa_enabled")
    crepa_normalize_by_frames: Bool = later(True, "divide by the frames", _CREPA, part_of="crepa_enabled")
    crepa_normalize_neighbour_sum: Bool = later(
        False, "divide by the neighbours' weights", _CREPA, part_of="crepa_enabled"
    )
    crepa_spatial_align: Bool = later(True, "interpolate token grids", _CREPA, part_of="crepa_enabled")
    crepa_drop_vae_encoder: Bool = later(False, "free the VAE's encoder", _CREPA, part_of="crepa_enabled")
    crepa_use_tae: Bool = later(False, "decode with a tiny decoder", _CREPA, part_of="crepa_enabled")
    crepa_feature_source: Literal["encoder", "backbone", "self_flow"] = later(
        "encoder", "what is aligned with", _CREPA, part_of="crepa_enabled"
    )
    crepa_self_flow_mask_ratio: Float = later(0.1, "share of tokens of self_flow", _CREPA, part_of="crepa_enabled")
    crepa_teacher_block_index: Int | None = later(None, "block to align with", _CREPA, part_of="crepa_enabled")
    crepa_scheduler: Literal["constant", "linear", "cosine", "polynomial"] = later(
        "constant", "weight over the run", _CREPA, part_of="crepa_enabled"
    )
    crepa_warmup_steps: Int = later(0, "its warm-up", _CREPA, part_of="crepa_enabled")
    crepa_decay_steps: Int = later(0, "its decay", _CREPA, part_of="crepa_enabled")
    crepa_lambda_end: Float = later(0.0, "its last weight", _CREPA, part_of="crepa_enabled")
    crepa_power: Float = later(1.0, "its exponent", _CREPA, part_of="crepa_enabled")
    crepa_cutoff_step: Int = later(0, "its last step", _CREPA, part_of="crepa_enabled")
    crepa_similarity_threshold: Float | None = later(None, "similarity that ends it", _CREPA, part_of="crepa_enabled")
    crepa_similarity_ema_decay: Float = later(0.99, "its smoothing", _CREPA, part_of="crepa_enabled")
    crepa_threshold_mode: Literal["permanent", "recoverable"] = later(
        "permanent", "how it ends", _CREPA, part_of="crepa_enabled"
    )
    scheduled_sampling_max_step_offset: Int = later(0, "scheduled sampling: longest roll-out; 0: off", _ROLLOUT, ge=0)
    scheduled_sampling_strategy: Literal["uniform", "biased_early", "biased_late"] = later(
        "uniform", "draw of the length", _ROLLOUT, part_of="scheduled_sampling_max_step_offset"
    )
    scheduled_sampling_probability: Float = later(
        0.0, "share of samples", _ROLLOUT, part_of="scheduled_sampling_max_step_offset"
    )
    scheduled_sampling_prob_start: Float = later(
        0.0, "share at the start", _ROLLOUT, part_of="scheduled_sampling_max_step_offset"
    )
    scheduled_sampling_prob_end: Float = later(
        0.5, "share at the end", _ROLLOUT, part_of="scheduled_sampling_max_step_offset"
    )
    scheduled_sampling_ramp_steps: Int = later(
        0, "steps of the ramp", _ROLLOUT, part_of="scheduled_sampling_max_step_offset"
    )
    scheduled_sampling_start_step: Int = later(0, "first step", _ROLLOUT, part_of="scheduled_sampling_max_step_offset")
    scheduled_sampling_ramp_shape: Literal["linear", "cosine"] = later(
        "linear", "shape of the ramp", _ROLLOUT, part_of="scheduled_sampling_max_step_offset"
    )
    scheduled_sampling_sampler: Text = later(
        "unipc", "sampler (none for flow models)", _ROLLOUT, part_of="scheduled_sampling_max_step_offset"
    )
    scheduled_sampling_order: Int = later(2, "its order", _ROLLOUT, part_of="scheduled_sampling_max_step_offset")
    scheduled_sampling_reflexflow: Bool | None = later(
        None, "ReflexFlow on top", _ROLLOUT, part_of="scheduled_sampling_max_step_offset"
    )
    scheduled_sampling_reflexflow_alpha: Float = later(
        1.0, "its alpha", _ROLLOUT, part_of="scheduled_sampling_max_step_offset"
    )
    scheduled_sampling_reflexflow_beta1: Float = later(
        10.0, "its beta1", _ROLLOUT, part_of="scheduled_sampling_max_step_offset"
    )
    scheduled_sampling_reflexflow_beta2: Float = later(
        1.0, "its beta2", _ROLLOUT, part_of="scheduled_sampling_max_step_offset"
    )
