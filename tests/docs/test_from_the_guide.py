"""docs/from-the-guide.md and its Portuguese twin: nothing of the guide is left out, and what they claim is so.

The guide's sections, commands, keys and figures are kept here as data; its JSON blocks lie in configs/guide.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from docpages import PORTUGUESE, ROOT, commands, headings
from ltx2_job.config import DatasetConfig, TrainingConfig, resolve
from ltx2_job.config.layers import AUDIO, VIDEO
from ltx2_job.errors import ConfigError

ENGLISH_PAGE, PORTUGUESE_PAGE = ROOT / "docs" / "from-the-guide.md", ROOT / "docs" / "from-the-guide.pt.md"
BOTH = pytest.mark.parametrize("page", [ENGLISH_PAGE, PORTUGUESE_PAGE], ids=["en", "pt"])
GUIDE = ROOT / "configs" / "guide"

# The guide's sections in its order: (level, title, title in Portuguese).
SECTIONS = [
    (2, "LTX Video 2 quick start", "Início rápido do LTX Video 2"),
    (2, "Hardware requirements", "Requisitos de hardware"),
    (3, "Performance and memory seen in the field", "Desempenho e memória observados"),
    (3, "Memory offload (critical)", "Offload de memória (crítico)"),
    (2, "Prerequisites", "Pré-requisitos"),
    (2, "Installation", "Instalação"),
    (2, "Setting up the environment", "Configurando o ambiente"),
    (3, "Web interface", "Interface web"),
    (3, "Manual configuration", "Configuração manual"),
    (4, "Configuration parameters", "Parâmetros de configuração"),
    (3, "Optional: VRAM optimisations", "Opcional: otimizações de VRAM"),
    (3, "Optional: CREPA temporal regulariser", "Opcional: regularizador temporal CREPA"),
    (3, "Advanced experimental features", "Recursos experimentais avançados"),
    (4, "Dataset considerations", "Considerações sobre o dataset"),
    (4, "Directory setup", "Configuração de diretórios"),
    (4, "Login", "Login"),
    (3, "Running the training", "Executando o treinamento"),
    (2, "Notes and troubleshooting tips", "Notas e dicas de troubleshooting"),
    (3, "Out of memory (OOM)", "Sem memória (OOM)"),
    (3, "Validation video quality", "Qualidade do vídeo de validação"),
    (3, "TREAD training", "Treino TREAD"),
    (3, "Lowest VRAM configuration (7900 XTX)", "Configuração de menor uso de VRAM (7900 XTX)"),
    (3, "Validation flows (T2V and I2V)", "Fluxos de validação (T2V e I2V)"),
    (3, "Validation adapters (LoRAs)", "Adaptadores de validação (LoRAs)"),
]
COMMANDS = [
    "python --version",
    "pip install 'simpletuner[cuda]'",
    "pip install 'simpletuner[cuda13]'",
    "simpletuner server",
    "simpletuner configure",
    "cp config/config.json.example config/config.json",
    "mkdir -p datasets/videos",
    "wandb login",
    "huggingface-cli login",
    "simpletuner train",
]
FIGURES = [
    "19B", "64GB", "480p", "17 frames", "13 GB", "29-30 GB", "32 GB", "46 GB", "34 GB", "30 GB", "48 GB", "8 s/step",
    "16 s/step", "30 min", "200 steps", "8001", "A100-80G SXM4", "7900 XTX", "3090, 4090, 5090", "4-8", "dinov2_vitg14",
    "518", "dinov2_vits14", "224", "25-40%", "5.0", "6.0", "2.0", "25 fps", "(frames - 1) % 4 == 0", "3.12", "FSDP2",
    "Block Index 8", "Weight 0.5", "Adjacent Distance 1", "Temporal Decay 1.0", "Scheduled Sampling", "ReflexFlow",
    "camera pans right", "zoom in", "running", ".mp4", ".mov", ".txt",
]  # fmt: skip
# Keys of the guide's text; those of its JSON blocks are read from configs/guide.
KEYS = {
    "train_batch_size", "offload_during_startup", "model_family", "model_flavour", "pretrained_model_name_or_path",
    "validation_resolution", "validation_num_video_frames", "validation_guidance", "frame_rate",
    "musubi_blocks_to_swap", "musubi_block_swap_device", "vae_enable_patch_conv", "vae_enable_temporal_roll",
    "vae_enable_tiling", "max_frames", "frame_interval", "resolution_frames", "s2v_datasets", "eval_dataset_id",
    "validation_prompt_library", "validation_adapter_path", "validation_adapter_config",
    "validation_num_inference_steps", "validation_using_datasets", "validation_prompt",
}  # fmt: skip
VALUES = ["dev-fp4", "dev-fp8", "512x768", "720x1280", "480x854", "61", "49", "33", "aspect_ratio", "textfile"]
ADAPTERS = [
    *(
        f"Lightricks/LTX-2-19b-IC-LoRA-{name}"
        for name in ("Canny-Control", "Depth-Control", "Detailer", "Pose-Control")
    ),
    *(
        f"Lightricks/LTX-2-19b-LoRA-Camera-Control-{name}"
        for name in ("Dolly-In", "Dolly-Out", "Dolly-Left", "Dolly-Right", "Jib-Down", "Jib-Up", "Static")
    ),
    "Lightricks/LTX-2-19b-distilled-lora-384",
]
# What stands in the last cell of a row -> what it claims.
STATES = {
    "works": "works", "corrected": "corrected", "not yet": "not yet", "not offered": "not offered",
    "funciona": "works", "corrigido": "corrected", "ainda não": "not yet", "não oferecido": "not offered",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A row of the page: the guide's item, ours, and the claim."""

    section: str
    theirs: str
    ours: str
    state: str

    @property
    def settings(self) -> dict[str, Any]:
        """The `key: value` pairs of the first cell; `video.` and `audio.` are blocks of a dataset."""
        spans = re.findall(r"`(\w+(?:\.\w+)?: [^`]+)`", self.theirs)
        return {key: value for span in spans for key, value in yaml.safe_load(span).items()}


def rows(page: Path) -> list[Row]:
    """Every row of the tables whose last cell is a state."""
    found, section = [], ""
    for line in page.read_text().splitlines():
        if line.startswith("#"):
            section = line.lstrip("# ")
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == 3 and not set(cells[0]) <= {"-"} and cells[2] != "":
            found.append(Row(section, cells[0], cells[1], STATES[cells[2].strip("*|")]))
    return found


def all_keys() -> set[str]:
    """Every key of the guide: of its text, and of its JSON blocks at any depth."""

    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value) | {key for inner in value.values() for key in keys(inner)}
        return {key for inner in value for key in keys(inner)} if isinstance(value, list) else set()

    blocks = {key for path in GUIDE.glob("*.json") for key in keys(json.loads(path.read_text()))}
    return KEYS | (blocks - {"video", "audio"})


def test_both_pages_have_the_guides_sections_in_its_order() -> None:
    assert headings(ENGLISH_PAGE)[1:] == [(level, title) for level, title, _ in SECTIONS]
    assert headings(PORTUGUESE_PAGE)[1:] == [(level, title) for level, _, title in SECTIONS]


@BOTH
def test_every_section_has_a_row(page: Path) -> None:
    """Every one but the roof over the troubleshooting tips and the one over setting up has something to say."""
    with_rows = {row.section for row in rows(page)}
    column = 1 if page == ENGLISH_PAGE else 2
    empty = [section[column] for section in SECTIONS if section[column] not in with_rows]
    assert empty == [SECTIONS[6][column], SECTIONS[17][column]]


@BOTH
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_row(page: Path, command: str) -> None:
    assert any(f"`{command}`" in row.theirs for row in rows(page))


@BOTH
def test_every_key_value_and_figure_is_there(page: Path) -> None:
    theirs = " ".join(row.theirs for row in rows(page))
    words = set(re.findall(r"[\w-]+", theirs))
    assert sorted(key for key in all_keys() if key not in words) == []
    assert [value for value in VALUES if value not in words] == []
    assert [figure for figure in FIGURES if figure not in page.read_text()] == []
    assert [name for name in ADAPTERS if f"`{name}:{name.partition('/')[2].lower()}.safetensors`" not in theirs] == []


@BOTH
def test_every_json_block_is_named(page: Path) -> None:
    text = page.read_text()
    assert [path.name for path in GUIDE.iterdir() if f"configs/guide/{path.name}" not in text] == []


def test_the_two_languages_say_the_same() -> None:
    """Row by row the same settings, code and claim; the same commands with the same marks."""
    english, portuguese = rows(ENGLISH_PAGE), rows(PORTUGUESE_PAGE)
    assert len(english) == len(portuguese) > 90
    for one, two in zip(english, portuguese, strict=True):
        assert (one.state, one.settings, _code(one.theirs)) == (two.state, two.settings, _code(two.theirs)), two
        assert _code(one.ours) == _code(two.ours), two
        assert one.ours != two.ours or _is_only_code(one.ours), f"not translated: {two}"
    assert [(one.text, one.mark) for one in commands(ENGLISH_PAGE)] == [
        (two.text, two.mark) for two in commands(PORTUGUESE_PAGE)
    ]
    assert PORTUGUESE  # the marks of the second are in its own language (docpages.mark_of)


def _code(cell: str) -> list[str]:
    return sorted(re.findall(r"`([^`]+)`", cell))


def _is_only_code(cell: str) -> bool:
    return not re.search(r"[a-z]{3}", re.sub(r"`[^`]*`|\[[^\]]*\]\([^)]*\)", "", cell))


@pytest.mark.parametrize("row", [row for row in rows(ENGLISH_PAGE) if row.settings], ids=lambda row: row.theirs[:60])
def test_a_claim_about_a_key_is_what_the_program_does(row: Row) -> None:
    """The settings of a row, given to the program: taken, put right, not there yet or refused, as the row says."""
    config: dict[str, Any] = {}
    dataset: dict[str, Any] = {"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "clips"}
    for key, value in row.settings.items():
        block, _, name = key.rpartition(".")
        if block:
            dataset.setdefault(block, {})[name] = value
        elif key in DatasetConfig.model_fields and key not in TrainingConfig.model_fields:
            dataset[key] = value
        elif key != "data_backend_config":
            config[key] = value
    if dataset["dataset_type"] == "text_embeds":
        dataset.pop("instance_data_dir")
    datasets = [dataset] if dataset["dataset_type"] == "video" else [{"id": "a", **BASE}, dataset]
    assert set(dataset.get("video", {})) <= VIDEO.known()
    assert set(dataset.get("audio", {})) <= AUDIO.known()
    assert outcome(config, datasets) == row.state, row


BASE = {"type": "local", "dataset_type": "video", "instance_data_dir": "clips"}


def outcome(config: dict[str, Any], datasets: list[dict[str, Any]]) -> str:
    """What the program says to these settings, in the page's words."""
    try:
        resolved = resolve(config, datasets)
    except ConfigError as error:
        return "not offered" if "not offered" in str(error) else f"refused: {error}"
    plain = {str(item) for item in resolve({}, [{"id": "a", **BASE}]).corrections}
    if resolved.unsupported:
        return "not yet"
    return "corrected" if {str(item) for item in resolved.corrections} - plain else "works"


def test_the_outcome_tells_the_four_apart() -> None:
    datasets = [{"id": "a", **BASE}]
    assert outcome({"seed": 42}, datasets) == "works"
    assert outcome({"validation_num_video_frames": 61}, datasets) == "corrected"
    assert outcome({"ramtorch": True}, datasets) == "not yet"
