"""Model cards: their metadata, as the Hub reads it, and their examples, run."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import potstill
from potstill.inference.decoder import DecoderClassifier
from potstill.inference.student import StudentClassifier
from potstill.metrics import evaluation
from potstill.model_card import CARD, MARK, _code, hub_name, model_card, write_card
from tests.inference.conftest import LABELS, adapter, student  # noqa: F401

NODE_MODULES = Path(__file__).parent / "node" / "node_modules"
HAS_PACKAGES = (NODE_MODULES / "onnxruntime-web").is_dir()
CONFIG: dict[str, Any] = {
    "command": "LoRA",
    "SR": 7,
    "labels": ["unacceptable", "acceptable"],
    "max_length": 64,
    "decoder": {"variant": "smollm2", "title": "SmolLM2-135M", "sha256": "0" * 64},
    "data": {"name": "CoLA", "path": "/home/me/data", "sentences": {"train": 8551, "dev": 527}},
    "parameters": {"total": 135_740_000, "trainable": 1},
    "versions": {"potstill": "0.1.0"},
}
SCORES = evaluation([[2.0, 1], [0, 3], [1, 0], [0, 1]], [0, 1, 1, 1])
RESULTS = {"chosen": {"holdout": SCORES, "dev": SCORES}}


def parsed(*args: Any, **kwargs: Any) -> ModelCard:
    return ModelCard(model_card(*args, **kwargs))


def test_the_metadata_are_those_that_the_hub_documents() -> None:
    data = parsed("adapter", CONFIG, RESULTS).data
    assert data.license == "apache-2.0"
    assert data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert data.base_model_relation == "adapter"
    assert data.datasets == ["nyu-mll/glue"]
    assert data.language == "en"
    assert data.pipeline_tag == "text-classification"
    assert data.library_name == "peft"
    values = {(r.dataset_split, r.metric_type): r.metric_value for r in data.eval_results}
    # On the held-out slice the epoch was chosen: its scores are no measure.
    assert values == {
        ("dev", "accuracy"): 0.75,
        ("dev", "matthews_correlation"): round(SCORES["mcc"], 4),
        ("dev", "f1"): round(SCORES["macro_f1"], 4),
    }


def test_a_local_base_and_data_of_one_s_own_name_nothing_of_the_hub() -> None:
    config = CONFIG | {
        "decoder": {"variant": "/home/me/gpt", "title": "gpt", "sha256": "0" * 64},
        "data": CONFIG["data"] | {"name": "reviews"},
    }
    card = parsed("adapter", config, RESULTS)
    data = card.data
    assert (data.license, data.base_model, data.datasets, data.language) == (None,) * 4
    assert "No licence is set" in card.text
    assert "/home/me" not in str(card)


def test_a_student_s_card_names_its_teacher() -> None:
    teacher = {"title": "GPT-2 + LoRA", "parameters": 125_000_000}
    teacher["decoder"] = {"variant": "gpt2", "title": "GPT-2", "sha256": "1" * 64}
    config = {k: v for k, v in CONFIG.items() if k != "decoder"} | {"teacher": teacher}
    card = parsed("student", config, RESULTS)
    assert card.data.base_model == "openai-community/gpt2"
    assert card.data.license == "mit"
    assert "distillation" in card.data.tags
    assert "- Teacher: GPT-2 + LoRA, 125,000,000 parameters" in card.text
    assert f"| dev | 4 | 75.0 % | 75.0 % | {SCORES['mcc']:.3f} [" in card.text


@pytest.mark.parametrize("kind", ["adapter", "student", "onnx", "merged", "base"])
def test_a_card_of_a_run_that_recorded_nothing(kind: Any) -> None:
    card = parsed(kind, {}, {})
    assert "The run that trained it is not recorded." in card.text
    assert card.data.eval_results is None


def test_labels_and_names_are_never_markup() -> None:
    config = CONFIG | {
        "labels": ["<script>|x`y``", ":heart:"],
        "data": CONFIG["data"] | {"name": "**a** [b](c) <img>\n# d"},
    }
    text = parsed("student", config, RESULTS).text
    assert "| 0 | ``` <script>\\|x`y`` ``` |" in text
    assert "| 1 | `:heart:` |" in text
    assert "- Data: \\*\\*a\\*\\* \\[b\\](c) \\<img\\> # d, sentences" in text


def test_code_spans_are_as_long_as_their_content_asks() -> None:
    assert (_code("a"), _code("`"), _code("a``b`c")) == ("`a`", "`` ` ``", "``` a``b`c ```")


def test_hub_names() -> None:
    assert hub_name("gpt2") == "openai-community/gpt2"
    assert hub_name("EleutherAI/pythia-70m") == "EleutherAI/pythia-70m"
    assert hub_name("/home/me/gpt") is None


def test_a_card_of_one_s_own_is_kept(tmp_path: Path) -> None:
    write_card(tmp_path, "student", CONFIG, RESULTS)
    write_card(tmp_path, "student", CONFIG | {"SR": 8}, RESULTS)
    card = tmp_path / CARD
    assert "seed 8" in card.read_text()
    own = card.read_text().replace(MARK, "") + "More about it.\n"
    card.write_text(own)
    write_card(tmp_path, "student", CONFIG, RESULTS)
    assert card.read_text() == own


def test_save_pretrained_and_export_write_cards(
    student: Path,  # noqa: F811
    adapter: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    DecoderClassifier(adapter).save_pretrained(tmp_path / "a")
    classifier = StudentClassifier(student)
    classifier.save_pretrained(tmp_path / "s")
    classifier.export_onnx(tmp_path / "o")
    classifier.export_onnx(student)
    cards = {
        p: ModelCard.load(p / CARD)
        for p in (tmp_path / "a", tmp_path / "s", tmp_path / "o", student)
    }
    libraries = [card.data.library_name for card in cards.values()]
    assert libraries == ["peft", "potstill", "potstill", "potstill"]
    assert ["onnxruntime.InferenceSession" in c.text for c in cards.values()] == [0, 0, 1, 1]


@pytest.fixture
def exported(student: Path, tmp_path: Path) -> Path:  # noqa: F811
    StudentClassifier(student).export_onnx(tmp_path / "exported")
    return tmp_path / "exported"


def example(folder: Path, language: str, texts: list[str]) -> str:
    """Return the example of a card that loads model.onnx, for other texts."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (folder / CARD).read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "InferenceSession" in block]
    assert len(code.strip().splitlines()) <= 21
    texts_of_card = '["A text to classify.", "Another one."]'
    assert texts_of_card in code
    return code.replace(texts_of_card, json.dumps(texts, ensure_ascii=False))


TEXTS = [
    "The books is on the table.",
    "x " * 40 + "cut at sixteen tokens",
    "Naïve café 😀  ﬁne <pad>",
]


def check_answers(folder: Path, lines: list[str]) -> None:
    expected = potstill.load(folder).predict_proba(TEXTS)
    assert len(lines) == len(TEXTS)
    for text, line, row in zip(TEXTS, lines, expected, strict=True):
        assert line.startswith(text)
        numbers = [float(n) for n in re.findall(r"(?<=: )[0-9.e-]+", line.removeprefix(text))]
        assert numbers == pytest.approx(row.tolist(), abs=1e-5)
        assert all(label in line for label in LABELS)


def test_the_python_of_a_card_answers_as_potstill_does(exported: Path) -> None:
    code = example(exported, "python", TEXTS)
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=exported
    )
    assert process.returncode == 0, process.stderr
    check_answers(exported, process.stdout.splitlines())


@pytest.mark.skipif(not shutil.which("node"), reason="there is no Node.js (node) here")
@pytest.mark.skipif(not HAS_PACKAGES, reason="no onnxruntime-web in tests/node: run npm ci there")
def test_the_javascript_of_a_card_answers_as_potstill_does(exported: Path) -> None:
    (exported / "classify.mjs").write_text(example(exported, "javascript", TEXTS))
    (exported / "node_modules").symlink_to(NODE_MODULES)
    command = ["node", "classify.mjs"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=exported, timeout=60)
    assert process.returncode == 0, process.stderr
    check_answers(exported, process.stdout.splitlines())
