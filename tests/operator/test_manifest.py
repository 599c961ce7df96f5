"""Manifests as kubectl reads them; the expected values were taken from kubectl 1.37 itself (and are again, where it
is there).
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltx2_job.errors import NoInputError
from ltx2_operator import manifest
from ltx2_operator.manifest import ManifestError

# What kubectl made of each plain scalar.
KUBECTL = {
    "1e-4": 0.0001, "6e-05": 6e-05, "1:30": "1:30", "0o17": 15, "017": 15, "0x1F": 31, "0b101": 5, "1_000": 1000,
    "y": True, "n": False,
    "yes": True, "No": False, "on": True, "OFF": False, "~": None, "null": None, "Null": None, "nUll": "nUll",
    "tRue": "tRue", "True": True,
    ".5": 0.5, "5.": 5.0, "+3": 3, "-0.0": -0.0, "1e3": 1000.0, "2026-11-22": "2026-11-22",
    "2026-11-22T10:00:00Z": "2026-11-22T10:00:00Z",
    "09": 9.0, "0.1_5": 0.15, "1__0": 10, "_1": "_1", "1_": 1, "._5": "._5", "1._5": 1.5, "+.5": 0.5, "-.5e1": -5.0,
    "190:20:30": "190:20:30",
    "0O17": 15, "0XfF": 255, "-017": -15, "-0x1F": -31, "0b2": "0b2", "08": 8.0, "1.e5": 100000.0, "0o": "0o",
    "0x": "0x", "1e": "1e",
    "e5": "e5", ".": ".", "00": 0, "12e03": 12000.0, "true1": "true1", "18446744073709551615": 1.8446744073709552e19,
    "9223372036854775807": 2**63 - 1,
}  # fmt: skip
GOOD = """apiVersion: ltx2.dev/v1alpha1
kind: LTX2Training
metadata: {name: fox}
spec: {}
"""


def write(tmp_path, text):
    path = tmp_path / "training.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", KUBECTL)
def test_plain_scalars_are_what_kubectl_makes_of_them(tmp_path, text):
    # Catches: PyYAML's own table, in which learning_rate: 1e-4 is a string.
    body = manifest.load(write(tmp_path, f"a: {text}\nb: ['{text}', \"{text}\"]\n"))[0].body
    assert body["a"] == KUBECTL[text]
    assert type(body["a"]) is type(KUBECTL[text])
    assert body["b"] == [text, text]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on this machine")
def test_kubectl_still_reads_them_so(tmp_path):
    rows = "\n".join(f"- {text}" for text in KUBECTL)
    path = write(
        tmp_path,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nkeys: {n: 1, 1: a, 1.5: b, 0x10: d, 1e3: f}\n"
        f"values:\n{rows}\n",
    )
    done = subprocess.run(
        ["kubectl", "label", "--local", "-f", path, "a=b", "-o", "json"], capture_output=True, text=True, check=True
    )
    real = json.loads(done.stdout)
    mine = manifest.load(path)[0].body
    assert [float(value) if isinstance(value, int) else value for value in mine["values"]] == [
        float(value) if isinstance(value, int) else value for value in real["values"]
    ]
    assert [isinstance(value, bool) for value in mine["values"]] == [
        isinstance(value, bool) for value in real["values"]
    ]
    assert mine["keys"] == real["keys"] == {"false": 1, "1": "a", "1.5": "b", "16": "d", "1000": "f"}


def test_the_learning_rate_of_the_guide_is_a_number(tmp_path):
    body = manifest.load(write(tmp_path, "config: {learning_rate: 1e-4, lr: 6e-05}"))[0].body
    assert body == {"config": {"learning_rate": 0.0001, "lr": 6e-05}}


def test_anchors_merges_and_blocks(tmp_path):
    text = "a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\nc: |\n  1e-4\n  line\nd: !!str 12\n"
    assert manifest.load(write(tmp_path, text))[0].body == {
        "a": {"p": 1, "q": 2},
        "b": {"p": 1, "q": 3},
        "c": "1e-4\nline\n",
        "d": "12",
    }


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: [1\nc: 2\n", 3, "expected"),
        ("a: 1\na: 2\n", 2, "key 'a' is set twice"),
        ("a: {y: 1, yes: 2}\n", 1, "key 'true' is set twice"),
        ("a: 1\n---\n- 1\n", 3, "a list, not a mapping"),
        ("a: 1\nb: .inf\n", 2, "no form in JSON"),
        ("a: 1\n\n? [1]\n: 2\n", 3, "cannot be a key"),
        ("a: !ours 1\n", 1, "could not determine a constructor"),
        ("a: 1\nb: \x07\n", 2, "special characters"),
        ("a: *nowhere\n", 1, "undefined alias"),
    ],
)
def test_mistakes_carry_file_and_line(tmp_path, text, line, words):
    path = write(tmp_path, text)
    with pytest.raises(ManifestError) as error:
        manifest.load(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert words in str(error.value)
    assert error.value.exit_code == 78


def test_files_that_are_none(tmp_path):
    with pytest.raises(NoInputError, match="No such file"):
        manifest.load(tmp_path / "absent.yaml")
    with pytest.raises(ManifestError, match="no document"):
        manifest.load(write(tmp_path, "# nothing\n---\n"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="no text"):
        manifest.load(tmp_path / "binary")


def test_several_documents_and_json(tmp_path):
    found = manifest.load(write(tmp_path, f"# c\n---\nkind: Secret\nmetadata: {{name: hf}}\n---\n{GOOD}"))
    assert [(document.kind, document.line) for document in found] == [("Secret", 3), ("LTX2Training", 6)]
    assert manifest.training(found).body["metadata"]["name"] == "fox"
    path = tmp_path / "config.json"
    path.write_text('{"learning_rate": 1e-4,\n\t"a": "y"}')
    assert manifest.load(path)[0].body == {"learning_rate": 0.0001, "a": "y"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("v1alpha1", "v1"), "apiVersion is 'ltx2.dev/v1'; write ltx2.dev/v1alpha1"),
        (GOOD.replace("LTX2Training", "LTX2Traning"), "did you mean LTX2Training?"),
        (GOOD.replace("kind: LTX2Training\n", ""), "kind is None, no LTX2Training; write apiVersion"),
        (GOOD.replace("{name: fox}", "{}"), "metadata.name is None"),
        (GOOD.replace("fox", "5"), "metadata.name is 5"),
        (f"{GOOD}---\n{GOOD}", "2 trainings (lines 1, 6); one file holds one"),
        ('{"model_type": "lora", "max_train_steps": 5}', "use `ltx2 train --config"),
        ("kind: Deployment", "kind is 'Deployment', no LTX2Training"),
    ],
)
def test_what_is_no_training_is_told_what_to_write(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(ManifestError) as error:
        manifest.training(manifest.load(path))
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_secrets_of_the_same_file(tmp_path):
    text = "kind: Secret\nmetadata: {name: hub}\nstringData: {token: plain}\ndata: {other: aGVsbG8=, token: aGVsbG8=}\n"
    assert manifest.secrets(manifest.load(write(tmp_path, text))) == {"hub": {"token": "plain", "other": "hello"}}
    with pytest.raises(ManifestError, match=r"Secret data.token is no base64; use stringData"):
        manifest.secrets(manifest.load(write(tmp_path, "kind: Secret\nmetadata: {name: hub}\ndata: {token: '%'}\n")))


TEXT = st.one_of(
    st.sampled_from([*KUBECTL, "", "<<", "a\nb", " x", "x: y", "# c", "- a", "é", "'", '"', "null", "0o17", "1_0"]),
    st.text(max_size=12),
)
VALUE = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXT,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(TEXT, VALUE, max_size=4))
@settings(derandomize=True, deadline=None, max_examples=300)
def test_what_is_dumped_is_read_back(body):
    # Catches: a text "y" or "1e-4" that is written without quotes and read by kubectl as something else.
    found = manifest.parse(f"kind: x\n---\n{manifest.dump([body])}", Path("x"))
    assert found[1].body == body
