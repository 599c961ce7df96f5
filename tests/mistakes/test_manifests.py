"""Mistakes in a manifest: found while it is read or planned."""

from dataclasses import replace

import pytest

from mistakes.cases import MANIFEST, Mistake, both, edit, mistake, mistakes, names, try_it, write

FILE = "training.yaml"
GPU, NAME, SIZE, SPEC = "  gpu: {class: cpu}\n", "  name: fox\n", "{size: 20Gi}", "spec:\n"

MISTAKES = [
    # ---- the file
    mistake("no such file", 66, "nowhere.yaml", "No such file", "give the path of a manifest", argv="run nowhere.yaml"),
    mistake("a folder", 66, "clips", "Is a directory", "give the path of a manifest", argv="run clips"),
    mistake("empty", 78, FILE, "holds no document", "apiVersion", change=write("")),
    mistake("comments only", 78, FILE, "holds no document", "apiVersion", change=write("# later\n---\n")),
    mistake("a list", 78, f"{FILE}:1", "a list, not a mapping", "begins with apiVersion", change=write("- a\n- b\n")),
    mistake("a word", 78, f"{FILE}:1", "a str, not a mapping", "begins with apiVersion", change=write("hello\n")),
    mistake("utf-16", 78, FILE, "UTF-16", "save it as UTF-8", change=write(MANIFEST.encode("utf-16"))),
    mistake("latin-1", 78, FILE, "UTF-8", "save it as UTF-8", change=write(MANIFEST.replace("fox", "füchse").encode("latin-1"))),
    mistake("a video in its place", 78, "clips/a.mp4", "is no text", "give the path of a manifest", argv="run clips/a.mp4"),
    # ---- YAML
    mistake("a tab", 78, f"{FILE}:6", "'\\t'", "blanks", change=edit("  gpu:", "\tgpu:")),
    mistake("wrong indentation", 78, f"{FILE}:7", "indent", change=edit("  storage:", "   storage:")),
    mistake("too far to the left", 78, f"{FILE}:10", "mapping values are not allowed", "indent it as", change=edit("    pretrained", "  pretrained")),
    mistake("an unclosed bracket", 78, f"{FILE}:7", "expected ',' or '}'", change=edit("{class: cpu}", "{class: cpu")),
    mistake("no blank after a colon", 78, f"{FILE}:8", "mapping values are not allowed", "indent it as", change=edit("{class: cpu}", "\n    class:cpu\n    count: 1")),
    mistake("a key twice", 78, f"{FILE}:11", "key 'max_train_steps' is set twice", "keep one", change=edit("    max_train_steps: 5\n", "    max_train_steps: 5\n    max_train_steps: 6\n")),
    mistake("a key twice in JSON", 78, f"{FILE}:1", "key 'kind' is set twice", "keep one", change=write('{"kind": "LTX2Training", "kind": "Job"}')),
    mistake("an alias without anchor", 78, f"{FILE}:6", "undefined alias 'small'", change=edit("{class: cpu}", "*small")),
    mistake("an alias of itself", 78, "validation_prompt", "must be text", change=edit("  config:\n", "  config: &all\n    validation_prompt: *all\n")),
    mistake("nested without end", 78, FILE, "nested too deeply", "bracket", change=write("a: " + "[" * 5000)),
    mistake("a number that is none", 78, f"{FILE}:10", ".nan", "has no form in JSON", change=edit("max_train_steps: 5", "max_train_steps: .nan")),
    mistake("a template that was not filled in", 78, f"{FILE}:4", ".Values.name", "cannot be a key", "fill in the template", change=edit("name: fox", "name: {{ .Values.name }}")),
    # ---- what it is
    mistake("two trainings", 78, FILE, "2 trainings (lines 1, 21)", "one file holds one", change=write(MANIFEST + "---\n" + MANIFEST)),
    mistake("another version", 78, f"{FILE}:1", "'ltx2.dev/v1'", "write ltx2.dev/v1alpha1", change=edit("v1alpha1", "v1")),
    mistake("no version", 78, f"{FILE}:1", "apiVersion is None", "write ltx2.dev/v1alpha1", change=edit("apiVersion: ltx2.dev/v1alpha1\n", "")),
    mistake("the short name as kind", 78, "kind is 'ltx2'", "LTX2Training", change=edit("kind: LTX2Training", "kind: ltx2")),
    mistake("a kind misspelt", 78, "kind is 'LTX2Trainnig'", "did you mean LTX2Training?", change=edit("LTX2Training", "LTX2Trainnig")),
    mistake("no kind", 78, "kind is None", "kind: LTX2Training", change=edit("kind: LTX2Training\n", "")),
    mistake("a config.json in its place", 78, "the guide's config.json", "ltx2 train --config config/config.json", argv="run config/config.json"),
    mistake("a Secret alone", 78, "kind is 'Secret'", "kind: LTX2Training", change=write("apiVersion: v1\nkind: Secret\nmetadata: {name: hf}\n")),
    # ---- metadata
    mistake("no name", 78, f"{FILE}:1", "metadata.name is None", "give the training a name", change=edit(NAME, "  labels: {a: b}\n")),
    mistake("a name with capitals", 78, "metadata.name", "'My_Fox'", "small letters, digits and dashes", change=edit("name: fox", "name: My_Fox")),
    mistake("a name of 60 letters", 78, "metadata.name", "60 characters, at most", "shorter name", change=edit("name: fox", "name: " + "x" * 60)),
    mistake("a name that is a number", 78, "metadata.name", "1", "name", change=edit("name: fox", "name: 1")),
    mistake("a name with a path", 78, "metadata.name", "'../fox'", "small letters", change=edit("name: fox", "name: ../fox")),
    # ---- spec
    mistake("no spec", 78, "spec", "config", change=write("apiVersion: ltx2.dev/v1alpha1\nkind: LTX2Training\nmetadata: {name: fox}\n")),
    mistake("spec misspelt", 78, "spce", "did you mean spec?", change=edit(SPEC, "spce:\n")),
    mistake("an unknown key", 78, "spec.gpus", "unknown key", "did you mean gpu?", change=edit(GPU, "  gpus: {class: cpu}\n")),
    mistake("an unknown key deeper", 78, "spec.gpu.clas", "unknown key", "did you mean class?", change=edit("{class: cpu}", "{clas: cpu}")),
    mistake("an unknown key nothing like it", 78, "spec.zebra", "unknown key", "known:", change=edit(GPU, GPU + "  zebra: 1\n")),
    mistake("a key in the wrong style", 78, "spec.queue_name", "did you mean queueName?", change=edit(GPU, GPU + "  queue_name: a\n")),
    mistake("gpu as a word", 78, "spec.gpu", "'h100'", "{class: h100", change=edit("{class: cpu}", "h100")),
    mistake("a class that does not exist", 78, "spec.gpu.class", "h100", "did you mean h100-", "h100-80g", change=edit("class: cpu", "class: h100")),
    mistake("a class that is not here", 78, "spec.gpu.class", "h200 needs 1 x nvidia.com/gpu, this machine shows 0", "cluster", change=edit("class: cpu", "class: h200")),
    mistake("no GPU at all", 78, "spec.gpu.count", "0", "1", change=edit("{class: cpu}", "{class: cpu, count: 0}")),
    mistake("a negative count", 78, "spec.gpu.count", "-1", "greater than or equal to 1", change=edit("{class: cpu}", "{class: cpu, count: -1}")),
    mistake("one GPU and a half", 78, "spec.gpu.count", "1.5", "integer", change=edit("{class: cpu}", "{class: cpu, count: 1.5}")),
    mistake("a count as text", 78, "spec.gpu.count", "'two'", "integer", change=edit("{class: cpu}", "{class: cpu, count: two}")),
    mistake("far too many nodes", 78, "spec.nodes", "65", "less than or equal to 64", change=edit(GPU, GPU + "  nodes: 65\n")),
    mistake("a size in GB", 78, "spec.storage.size", "'200GB'", "200Gi", change=edit(SIZE, "{size: 200GB}")),
    mistake("a size without a unit in quotes", 78, "spec.storage.size", "'0'", "200Gi", change=edit(SIZE, '{size: "0"}')),
    mistake("storage as a word", 78, "spec.storage", "'20Gi'", "{size: 20Gi}", change=edit(SIZE, "20Gi")),
    mistake("size and claim", 78, "spec.storage", "size 20Gi and claimName data are both set", "remove size", change=edit(SIZE, "{size: 20Gi, claimName: data}")),
    mistake("a memory plan misspelt", 78, "spec.memory", "'bf16/resident/kep:48'", "bf16/resident/keep:24", change=edit(GPU, GPU + "  memory: bf16/resident/kep:48\n")),
    mistake("a memory plan that is not built", 78, "spec.memory", "int8/resident/keep:0 is not supported yet", "fp32/resident/keep", change=edit(GPU, GPU + "  memory: int8/resident/keep:0\n")),
    mistake("a paused one", 78, "spec.suspend", "true", "write false to run it", change=edit(GPU, GPU + "  suspend: true\n")),
    mistake("suspend as text", 78, "spec.suspend", "'soon'", "boolean", change=edit(GPU, GPU + "  suspend: soon\n")),
    mistake("negative retries", 78, "spec.retries", "-3", "0", change=edit(GPU, GPU + "  retries: -3\n")),
    mistake("a deadline as words", 78, "spec.activeDeadlineSeconds", "'2h'", "integer", change=edit(GPU, GPU + "  activeDeadlineSeconds: 2h\n")),
    mistake("something not supported yet", 78, "spec.cache.shards", "not supported yet", "set it to 1", change=edit(GPU, GPU + "  cache: {shards: 2}\n")),
    mistake("a pod patch that restarts", 78, "spec.podTemplate.spec.restartPolicy", "'Always'", "spec.retries", change=edit(GPU, GPU + "  podTemplate: {spec: {restartPolicy: Always}}\n")),
    mistake("a ConfigMap that is elsewhere", 78, "spec.configFrom.name", "no ConfigMap a", "document", change=both(edit("  config:\n", "  configFrom: {name: a}\n"), edit("    pretrained_model_name_or_path: models/ltx-2-tiny.safetensors\n    max_train_steps: 5\n    validation_disable: true\n", ""))),
    mistake("config from two places", 78, "spec", "exactly one of config and configFrom", "paste", change=edit(GPU, GPU + "  configFrom: {name: a}\n")),
    mistake("config as text", 78, "spec.config", "'config.json' is no mapping", "write keys and values under it", change=both(edit("  config:\n", "  config: config.json\n"), edit("    pretrained_model_name_or_path: models/ltx-2-tiny.safetensors\n    max_train_steps: 5\n    validation_disable: true\n", ""))),
    mistake("datasets as a mapping", 78, "spec.datasets", "list", "- ", change=edit("    - id: clips", "      id: clips")),
    mistake("a dataset as a word", 78, "spec.datasets[0]", "'clips' is no mapping", change=write(MANIFEST[: MANIFEST.index("    - id")] + "    - clips\n")),
    mistake("no dataset", 78, "datasets", "no enabled dataset", "add an entry", change=write(MANIFEST[: MANIFEST.index("  datasets")] + "  datasets: []\n")),
    mistakes("datasets under config", 78, ("datasets: unknown key", "beside config, as spec.datasets"), ("datasets: there are none",), change=edit("  datasets:\n", "    datasets:\n")),
]  # fmt: skip


@pytest.mark.parametrize("one", MISTAKES, ids=names(MISTAKES))
def test_a_mistake_in_a_manifest_is_one_line_and_leaves_nothing(one: Mistake, place, started, temporary, capfd):
    try_it(one, place, started, temporary, capfd)


# What only a run asks for: a GPU here, and not to be paused.
LOOKED = [
    one
    for one in MISTAKES[::6]
    if one.argv == ("run", FILE) and not {"a class that is not here", "a paused one"} & {one.name}
]


@pytest.mark.parametrize("verb", ["render", "estimate", "check"])
@pytest.mark.parametrize("one", LOOKED, ids=names(LOOKED))
def test_the_verbs_that_look_say_the_same(verb, one: Mistake, place, started, temporary, capfd):
    try_it(replace(one, argv=(verb, FILE)), place, started, temporary, capfd)


def test_the_manifest_without_a_mistake_would_start(place, started):
    # Catches a suite that passes because something else is wrong.
    with pytest.raises(AssertionError, match="a process was started"):
        try_it(mistake("none", 0), place, started, place.root, None)


@pytest.mark.parametrize("text", [MANIFEST.encode("utf-8-sig"), MANIFEST.replace("\n", "\r\n").encode()])
def test_what_an_editor_on_windows_writes_is_no_mistake(place, started, text):
    place.write("training.yaml", text)
    with pytest.raises(AssertionError, match="a process was started"):
        try_it(mistake("none", 0), place, started, place.root, None)
