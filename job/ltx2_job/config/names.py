"""The names that choices may have, and for each that is not built yet what it waits for."""

from typing import Final

FLAVOURS: Final = ("dev", "dev-fp8", "dev-fp4", "2.3-dev", "2.3-distilled", "2.5-dev", "2.5-distilled")
FLAVOUR_ALIASES: Final = {"2": "dev", "2.0": "dev", "2.3": "2.3-dev", "2.5": "2.5-dev"}
FLAVOURS_LATER: Final = {
    "dev-fp8": "fp8 checkpoints come with real dequantisation",
    "dev-fp4": "fp4 checkpoints come with real dequantisation",
    "2.5-dev": "LTX-2.5 has a split checkpoint and another text encoder",
    "2.5-distilled": "LTX-2.5 has a split checkpoint and another text encoder",
}

SCHEDULERS: Final = (
    "constant",
    "constant_with_warmup",
    "linear",
    "sine",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
)
SCHEDULER_ALIASES: Final = {"cosine_with_warmup": "cosine"}

_BNB: Final = tuple(
    f"bnb-{name}{form}"
    for name in ("adam", "adamw", "lion", "ademamix", "adagrad", "rmsprop", "lars", "lamb", "sgd")
    for form in ("", "8bit", "-paged", "8bit-paged")
)
_TORCH: Final = tuple(
    f"torch-{name}"
    for name in (
        "adam",
        "adamw",
        "sgd",
        "radam",
        "nadam",
        "rmsprop",
        "adagrad",
        "adadelta",
        "adafactor",
        "adamax",
        "asgd",
        "sparseadam",
    )
)
_OPTIMI: Final = tuple(
    f"optimi-{name}" for name in ("adamw", "adan", "adam", "lion", "radam", "ranger", "sgd", "stableadamw")
)
_SDNQ: Final = tuple(f"sdnq-{name}" for name in ("adamw", "adamw+no_quant", "adafactor", "came", "lion", "muon"))
OPTIMIZERS: Final = (
    "adamw",
    "adamw_bf16",
    *(name for name in _TORCH if name != "torch-adamw"),
    "adamw_schedulefree",
    "adamw_schedulefree+aggressive",
    "adamw_schedulefree+no_kahan",
    "ao-adamw8bit",
    "ao-adamw4bit",
    "ao-adamfp8",
    "ao-adamwfp8",
    *_OPTIMI,
    *_BNB,
    "prodigy",
    "soap",
    "muon",
    "deepspeed-adamw",
    *_SDNQ,
)
OPTIMIZER_ALIASES: Final = {"torch-adamw": "adamw"}
OPTIMIZERS_BUILT: Final = ("adamw", "adamw_bf16")
OPTIMIZERS_LATER: Final = {
    name: "adamw and adamw_bf16 are built; the other optimizers come later"
    for name in OPTIMIZERS
    if name not in OPTIMIZERS_BUILT
}

_QUANTO: Final = ("int2-quanto", "int4-quanto", "int8-quanto", "fp8-quanto", "fp8uz-quanto")
_TORCHAO: Final = (
    "int8-torchao",
    "int8dq-torchao",
    "int8dq-int4-torchao",
    "int4-torchao",
    "fp8-torchao",
    "fp8wo-torchao",
    "fp8-int4-torchao",
)
_SDNQ_FORMS: Final = tuple(
    f"{form}-sdnq"
    for form in (
        "int8",
        "uint8",
        "int16",
        "uint16",
        "fp16",
        "fp8",
        "int6",
        "int5",
        "uint5",
        "uint4",
        "uint3",
        "uint2",
    )
)
PRECISIONS: Final = (
    "no_change",
    *_QUANTO,
    *_TORCHAO,
    "fp8-native",
    "fp8-transformerengine",
    "nf4-bnb",
    *_SDNQ_FORMS,
)
PRECISIONS_LATER: Final = {
    name: "the base is trained in bf16 (fp32 on a CPU); quantised bases come later"
    for name in PRECISIONS
    if name != "no_change"
}

ATTENTION: Final = (
    "diffusers",
    "xformers",
    "flash-attn",
    "flash-attn-2",
    "flash-attn-3",
    "flash-attn-3-varlen",
    "flash-attn-varlen-hub",
    "flash-attn-3-hub",
    "flash-attn-3-varlen-hub",
    "flex",
    "metal-flash-attention",
    "metal-flash-attention-int8",
    "metal-flash-attention-int4",
    "cudnn",
    "native-efficient",
    "native-flash",
    "native-math",
    "native-npu",
    "native-xla",
    "sla",
    "sageattention",
    "sageattention-int8-fp16-triton",
    "sageattention-int8-fp16-cuda",
    "sageattention-int8-fp8-cuda",
)

TRACKERS: Final = ("none", "simpletuner", "tensorboard", "wandb", "swanlab", "comet_ml", "custom-tracker", "all")
CAPTIONS: Final = ("textfile", "instanceprompt", "filename", "parquet", "huggingface", "csv", "webshart")
CAPTION_ALIASES: Final = {"instance_prompt": "instanceprompt"}
CAPTIONS_LATER: Final = dict.fromkeys(
    ("parquet", "huggingface", "csv", "webshart"),
    "captions come from text files, file names or one instance prompt; tables come later",
)
DATASET_TYPES: Final = (
    "video",
    "eval",
    "text_embeds",
    "image",
    "audio",
    "conditioning",
    "image_embeds",
    "conditioning_image_embeds",
    "distillation_cache",
    "caption",
)
DATASET_TYPES_LATER: Final = {
    "image": "datasets of still pictures come later",
    "audio": "external audio datasets come later",
    "conditioning": "reference videos and masks come later",
    "image_embeds": "datasets of image embeddings come later",
    "conditioning_image_embeds": "datasets of image embeddings come later",
    "distillation_cache": "distillation comes later",
    "caption": "datasets of captions alone come later",
}
