"""Mistakes in the guide's config.json, by `ltx2 train`."""

import pytest

from mistakes.cases import CONFIG, Mistake, edit, mistake, mistakes, names, try_it, write

FILE = "config/config.json"
STEPS, RANK = '"max_train_steps": 5', '"lora_rank": 4'


def config(name, code, *says, old=STEPS, new="", change=None, argv="train"):
    """A mistake in config.json: `new` in place of `old`."""
    return mistake(name, code, *says, change=change or edit(old, new, FILE), argv=argv)


def extra(name, key, value, *says, code=78):
    """A mistake in one key that is added."""
    return config(name, code, key, *says, old=RANK, new=f'"{key}": {value}')


MISTAKES = [
    # ---- the file
    config("no file", 66, "nowhere.json", "there is no such file", "--config FILE", change=write("", "x"), argv="train --config nowhere.json"),
    config("a folder", 66, "config", "Is a directory", argv="train --config config", change=write("", "x")),
    config("empty", 78, FILE, "holds no document", "{", change=write("", FILE)),
    config("a list", 78, f"{FILE}:1", "a list, not a mapping", "{", change=write("[1, 2]", FILE)),
    config("a manifest in its place", 78, "training.yaml", "LTX2Training", "ltx2 run training.yaml", argv="train --config training.yaml", change=write("", "x")),
    config("a comma too many", 78, f"{FILE}:", "comma", change=edit('"config/multidatabackend.json"\n', '"config/multidatabackend.json",,\n', FILE)),
    config("a comma missing", 78, f"{FILE}:4", "comma", old=STEPS + ",", new=STEPS),
    config("a comment of C", 78, f"{FILE}:3", "double quotes", "no comments", old=STEPS + ",", new=STEPS + ", // few"),
    config("a quote missing", 78, f"{FILE}:", "quotes", old='"lora_rank"', new='"lora_rank'),
    config("a key twice", 78, f"{FILE}:", "'lora_rank' is set twice", "keep one", old=RANK, new='"lora_rank": 4, "lora_rank": 8'),
    config("not UTF-8", 78, f"{FILE}:3", "0xfc", "save it as UTF-8", change=write(CONFIG.replace("5", "ü", 1).encode("latin-1"), FILE)),
    # ---- keys
    extra("a key misspelt", "lora_rnk", "4", "unknown key", "did you mean lora_rank?"),
    extra("a key of a dataset", "instance_data_dir", '"clips"', "unknown key", "it belongs in a dataset"),
    extra("a key nobody knows", "zebra", "1", "unknown key", "lists every key"),
    extra("a key that is not offered", "webhook_config", '"x.json"', "known, not offered", "remove it"),
    extra("a key that comes later", "push_to_hub", "true", "not supported yet", "remove the key"),
    extra("a key as an object", "seed", "{}", "must be a whole number, not {}"),
    # ---- values
    extra("a rank of nothing", "lora_rank", "0", "must be 1 or more, not 0"),
    extra("a negative rank", "lora_rank", "-4", "must be 1 or more, not -4"),
    extra("a rank in words", "lora_rank", '"four"', "must be a whole number, not 'four'"),
    extra("a rank and a half", "lora_rank", "4.5", "must be a whole number, not 4.5"),
    extra("a rank that is true", "lora_rank", "true", "must be a whole number, not True"),
    config("a rate in words", 78, "learning_rate", "must be a number, not 'fast'", old="1e-4", new='"fast"'),
    config("a rate that is no number", 78, "learning_rate", "NaN", old="1e-4", new="NaN"),
    config("an infinite rate", 78, f"{FILE}:5", "1e999", "write a finite number", old="1e-4", new="1e999"),
    config("a negative rate", 78, "learning_rate", "-0.0001", old="1e-4", new="-1e-4"),
    extra("a switch in words", "gradient_checkpointing", '"maybe"', "must be true or false, not 'maybe'"),
    extra("a choice misspelt", "optimizer", '"adamv"', "unknown value 'adamv'", "did you mean adamw?"),
    extra("a scheduler misspelt", "lr_scheduler", '"cosin"', "unknown value 'cosin'", "did you mean cosine?"),
    extra("a flavour misspelt", "model_flavour", '"deev"', "unknown value 'deev'", "did you mean dev?"),
    extra("a model type that is none", "model_type", '"lorra"', "unknown value 'lorra'", "did you mean lora?"),
    extra("a size in words", "validation_resolution", '"large"', "large", "768x512"),
    extra("no frames", "validation_num_video_frames", "0", "must be 1 or more, not 0"),
    extra("a list that is no JSON", "validation_resolution", '"[512"', "[512"),
    config("steps and epochs", 78, "max_train_steps and num_train_epochs are both set", "set one of them to 0", old='"num_train_epochs": 0', new='"num_train_epochs": 2'),
    config("neither steps nor epochs", 78, "max_train_steps and num_train_epochs are both 0", "set one of them", new='"max_train_steps": 0'),
    config("a negative number of steps", 78, "max_train_steps", "must be 0 or more, not -5", new='"max_train_steps": -5'),
    config("steps beyond all numbers", 78, "max_train_steps", "1" + "0" * 30, new='"max_train_steps": 1' + "0" * 30),
    extra("a batch of nothing", "train_batch_size", "0", "must be 1 or more, not 0"),
    config("two ways to move the weights", 78, "ramtorch and musubi_blocks_to_swap exclude each other", "keep one of them", old=RANK, new='"ramtorch": true, "musubi_blocks_to_swap": 4'),
    config("a home that nobody has", 78, "~nosuchuser/out", "no home", "write the whole path", old=RANK, new='"output_dir": "~nosuchuser/out"'),
    extra("an output folder that is a file", "output_dir", '"training.yaml"', "training.yaml", "file") ,
    extra("a checkpoint that is not there", "resume_from_checkpoint", '"step-0000999"', "step-0000999", "latest"),
    extra("a LoRA to begin with that is not there", "init_lora", '"runs/old/lora.safetensors"', "runs/old/lora.safetensors", "does not exist"),
    mistakes("three at once", 78, ("lora_rnk", "did you mean lora_rank?"), ("seed", "'x'"), ("learning_rate", "'fast'"), argv="train",
             change=write(CONFIG.replace("lora_rank", "lora_rnk").replace("1e-4", '"fast"').replace('"lora_rnk"', '"seed": "x", "lora_rnk"'), FILE)),
]  # fmt: skip


@pytest.mark.parametrize("one", MISTAKES, ids=names(MISTAKES))
def test_a_mistake_in_config_json_is_named_and_leaves_nothing(one: Mistake, place, started, temporary, capfd):
    try_it(one, place, started, temporary, capfd)


def test_the_config_without_a_mistake_would_start(place, started):
    # Catches a suite that passes because something else is wrong.
    with pytest.raises(AssertionError, match="a process was started"):
        try_it(mistake("none", 0, argv="train"), place, started, place.root, None)
