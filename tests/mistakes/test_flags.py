"""Mistakes on the command line, of `ltx2` and of what it hands to `ltx2-job`."""

import pytest

from mistakes.cases import Mistake, mistake, names, try_it

GENERATE = ("generate", "--model", "models/ltx-2-tiny.safetensors", "--prompt", "a fox", "--output", "fox.mp4")


def flags(name, argv, *says, code=64):
    """A mistake in what is typed."""
    return mistake(name, code, *says, argv=argv)


def generate(name, flag, value, *says, code=64):
    """A mistake in one flag of generate."""
    return mistake(name, code, *says, argv=(*GENERATE, flag, value))


MISTAKES = [
    # ---- verbs
    flags("no such verb", "rnu training.yaml", "rnu: no such verb", "did you mean run?"),
    flags("a verb of another tool", "apply -f training.yaml", "apply: no such verb", "ltx2 --help"),
    flags("a flag before the verb", "--workspace . run training.yaml", "--workspace: the verb comes first", "ltx2 --help"),
    flags("a verb in capitals", "RUN training.yaml", "RUN: no such verb", "did you mean run?"),
    flags("a job's verb misspelt", "genrate", "genrate: no such verb", "did you mean generate?"),
    # ---- ltx2's own flags
    flags("no file", "run", "FILE", "ltx2 run --help"),
    flags("two files", "run training.yaml other.yaml", "other.yaml: not known to `ltx2 run`", "one FILE"),
    flags("a file for a verb that takes none", "gpus training.yaml", "training.yaml: not known to `ltx2 gpus`", "takes no FILE"),
    flags("two files to write", "configure a.yaml b.yaml --yes", "b.yaml: not known to `ltx2 configure`", "takes one FILE"),
    flags("a flag of configure misspelt", "configure --ys", "--ys: not known", "did you mean --yes?"),
    flags("a flag misspelt", "run training.yaml --workspce .", "--workspce", "did you mean --workspace?"),
    flags("a flag cut short", "run training.yaml --work .", "--work: not known", "did you mean --workspace?"),
    flags("a flag without its value", "run training.yaml --workspace", "--workspace", "expected one argument", "ltx2 run --help"),
    flags("a flag of another verb", "run training.yaml --lora_rank=8", "--lora_rank=8: not known to `ltx2 run`", "ltx2 run --help"),
    flags("a flag in the style of kubectl", "run -f training.yaml", "-f: not known", "ltx2 run --help"),
    flags("a flag that takes no value", "doctor --json=yes", "--json", "yes"),
    flags("a workspace that is not there", "run training.yaml --workspace nowhere", "--workspace: nowhere", "no such folder", "make it", code=66),
    flags("a workspace that is a file", "ls --workspace training.yaml", "--workspace: training.yaml", "is a file", code=66),
    flags("a workspace that is not there, for the tools", "cache ls --workspace nowhere", "--workspace: nowhere", "no such folder", code=66),
    # ---- keys as flags of train
    flags("a key misspelt", "train --lerning_rate=1e-4", "--lerning_rate: unknown key", "did you mean --learning_rate?", code=78),
    flags("a key without its value", "train --learning_rate", "--learning_rate: needs a value", "--learning_rate=value", code=78),
    flags("a key with a value in words", "train --learning_rate fast", "--learning_rate: must be a number, not 'fast'", code=78),
    flags("a key without dashes", "train lora_rank=8", "lora_rank=8: is no flag", "write --key=value", code=78),
    flags("a key with one dash", "train -lora_rank=8", "-lora_rank=8: is no flag", "write --key=value", code=78),
    flags("a key cut short", "train --lora_ran=8", "--lora_ran: unknown key", "did you mean --lora_rank?", code=78),
    flags("a key given by two names", "train --checkpointing_steps=2 --checkpoint_step_interval=3", "--checkpoint_step_interval: is given twice", "keep one", code=78),
    flags("a rank out of range", "train --lora_rank=0", "--lora_rank: must be 1 or more, not 0", code=78),
    flags("config without its value", "train --config", "--config", "expected one argument"),
    # ---- the tools
    flags("generate without a model", "generate --prompt fox --output fox.mp4", "--model", "ltx2-job generate --help"),
    flags("generate without a prompt", "generate --model models/ltx-2-tiny.safetensors --output fox.mp4", "--prompt", "--help"),
    generate("an uneven width", "--width", "500", "--width", "'500' is not a multiple of 32"),
    generate("a negative height", "--height", "-64", "--height", "'-64' is not a multiple of 32"),
    generate("frames off the grid", "--frames", "50", "--frames", "'50' is not 8k+1"),
    generate("no steps", "--steps", "0", "--steps", "'0' is not a whole number of 1 or more"),
    generate("a rate of nothing", "--fps", "0", "--fps", "'0' is not a frame rate"),
    generate("a rate that is no number", "--fps", "nan", "--fps", "'nan' is not a frame rate"),
    generate("guidance in words", "--guidance", "strong", "--guidance", "'strong' is not a finite number"),
    generate("guidance without end", "--guidance", "inf", "--guidance", "'inf' is not a finite number"),
    generate("a seed in words", "--seed", "lucky", "--seed", "'lucky' is not a whole number"),
    generate("a seed below zero", "--seed", "-1", "--seed", "'-1' is not a whole number of 0 or more"),
    generate("rescaling too much", "--rescale", "2", "--rescale", "'2' is not a number from 0 to 1"),
    generate("a block that is not there", "--stg-block", "29", "--stg-block", "29", "2 blocks", code=64),
    generate("a device that is none", "--device", "gpu", "--device", "'gpu'", "cuda"),
    generate("another ending", "--output", "fox.avi", "--output", "'fox.avi' does not end in .mp4"),
    generate("a LoRA that is not there", "--lora", "nowhere.safetensors", "nowhere.safetensors", "does not exist", code=78),
    generate("a text encoder that is not there", "--gemma", "nowhere", "--gemma: 'nowhere' is no path of the workspace", "owner/name", code=78),
    flags("inspect nothing", "inspect", "FILE", "ltx2-job inspect --help"),
    flags("inspect what is not there", "inspect nowhere.safetensors", "nowhere.safetensors", "there is no such file", code=66),
    flags("a version that is none", "tiny new --version 9", "--version", "'9'", "2.3"),
    flags("a tiny model of no blocks", "tiny new --blocks 0", "--blocks", "'0' is not a whole number of 1 or more"),
    flags("a tiny model where a file lies", "tiny training.yaml", "training.yaml", "is a file", "name a folder", code=73),
    flags("half a verb of the cache", "cache", "ls|gc", "--help"),
    flags("a verb of the cache misspelt", "cache gg", "'gg'", "gc"),
    flags("a verb of config misspelt", "config chek config/config.json", "'chek'", "check"),
    flags("config of what is not there", "config check nowhere.json", "nowhere.json", "No such file", "give the path of a JSON file", code=66),
    flags("export of a run that is not there", "export --run fox --output out", "--run fox", "is the folder of a run", "ltx2 ls", code=66),
    flags("validate a run that is not there", "validate --run fox", "--run fox", "is the folder of a run", "ltx2 ls", code=66),
    flags("export to nowhere", "export --run fox", "--output", "ltx2-job export --help"),
]  # fmt: skip


@pytest.mark.parametrize("one", MISTAKES, ids=names(MISTAKES))
def test_a_mistake_on_the_command_line_is_named_and_leaves_nothing(one: Mistake, place, started, temporary, capfd):
    try_it(one, place, started, temporary, capfd)
