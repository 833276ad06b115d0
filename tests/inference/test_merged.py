"""A tuned decoder exported for transformers, which reads it without potstill."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from potstill.cli import main
from potstill.data.corpus import load_corpus
from potstill.decoder.adapter import save_adapter
from potstill.decoder.classifier import build_lora_classifier
from potstill.decoder.hub import find_base_model
from potstill.files import write_json
from potstill.inference import decoder as decoder_module
from potstill.inference.decoder import DecoderClassifier
from potstill.inference.locate import newest_student

TEXTS = [
    *load_corpus("minicola").splits["dev"].sentences[:20],
    "Is.",
    "Naïve café 😀 <|endoftext|>",
]


def save_tuned(folder: Path, base: Path, start_token: int | None) -> Path:
    """Save an adapter of three classes, every tensor of which is off its starting value."""
    base_model = find_base_model(str(base))
    torch.manual_seed(0)
    model = build_lora_classifier(base_model.base(), 3, rank=2, alpha=4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    folder.mkdir()
    save_adapter(model, folder, str(base_model.folder))
    about = {"labels": ["a", "<b>", ":c:"], "max_length": 24, "start_token": start_token}
    about |= {"versions": {"potstill": "0"}, "decoder": base_model.describe()}
    about |= {"calibration": {"temperature": 1.7, "sentences": 100}}
    write_json(folder / "config.json", about)
    return folder


@pytest.fixture(params=["tiny_gpt2", "tiny_llama"])
def base(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("start_token", [0, None])
def test_a_pipeline_answers_as_the_adapter_does(
    base: Path, start_token: int | None, tmp_path: Path
) -> None:
    adapter = DecoderClassifier(save_tuned(tmp_path / "a", base, start_token), precision="fp32")
    difference = adapter.export_merged(tmp_path / "merged")
    assert 0 <= difference < 1e-4
    classify = pipeline("text-classification", str(tmp_path / "merged"), device="cpu")
    answers = classify(TEXTS, top_k=None, batch_size=5, truncation=True)
    for row, answer in zip(adapter.predict_proba(TEXTS), answers, strict=True):
        scores = {a["label"]: a["score"] for a in answer}
        np.testing.assert_allclose([scores[c] for c in adapter.classes_], row, atol=1e-5)


def test_the_start_token_matters(tiny_gpt2: Path, tmp_path: Path) -> None:
    adapter = DecoderClassifier(save_tuned(tmp_path / "a", tiny_gpt2, 0), precision="fp32")
    adapter.export_merged(tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    ids = tokenizer("The books")["input_ids"]
    assert ids[0] == 0
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        without = model(torch.tensor([ids[1:]])).logits[0].numpy()
    assert abs(without - adapter.logits("The books")[0] / adapter.temperature).max() > 1e-2


def test_a_bf16_adapter_is_merged_in_fp32(tiny_llama: Path, tmp_path: Path) -> None:
    folder = save_tuned(tmp_path / "a", tiny_llama, 0)
    for precision in ("bf16", "fp32"):
        DecoderClassifier(folder, precision=precision).export_merged(tmp_path / precision)
    weights = [(tmp_path / p / "model.safetensors").read_bytes() for p in ("bf16", "fp32")]
    assert weights[0] == weights[1]
    assert b'"F32"' in weights[0]


def test_export_merged_from_the_command_line(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    save_tuned(tmp_path / "runs" / "LoRA-3", tiny_gpt2, 0)
    for _ in range(2):  # the second replaces the first
        main(args=["export", "--merged"])
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("merged: runs/LoRA-3-merged; logits differ from the adapter's by ")
    config = json.loads(Path("runs/LoRA-3-merged/config.json").read_text())
    assert config["id2label"] == {"0": "a", "1": "<b>", "2": ":c:"}
    permissions = {p.stat().st_mode for p in Path("runs/LoRA-3-merged").iterdir()}
    assert len(permissions) == 1
    assert newest_student() is None  # its weights are called as a student's are
    card = Path("runs/LoRA-3-merged/README.md").read_text()
    assert 'pipeline("text-classification"' in card
    assert "24 tokens" in card


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--int8"], "a merged decoder is fp32: leave out --int8 or --merged"),
        (["--model_path", "nothing"], "there is no adapter in nothing; tune one"),
        ([], "there is no adapter in runs/; tune one"),
        (["--model_path", "a", "--output", "a"], "a holds the adapter; name another folder"),
        (["--model_path", "a", "--output", "full"], "full is not empty and not a run"),
    ],
)
def test_what_export_merged_refuses(
    flags: list[str],
    message: str,
    tiny_gpt2: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tuned(tmp_path / "a", tiny_gpt2, 0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis").touch()
    with pytest.raises(SystemExit):
        main(args=["export", "--merged", *flags])
    assert message in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "full"]


def test_an_export_that_answers_otherwise_is_not_written(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_module, "MAX_MERGING_ERROR", 0.0)
    adapter = DecoderClassifier(save_tuned(tmp_path / "a", tiny_gpt2, 0), precision="fp32")
    with pytest.raises(RuntimeError, match="the merged decoder answers otherwise"):
        adapter.export_merged(tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
