"""Saved models, small and random."""

import json
from pathlib import Path

import pytest
import torch

from potstill.data.corpus import load_corpus
from potstill.decoder.adapter import save_adapter
from potstill.decoder.classifier import build_lora_classifier
from potstill.decoder.hub import find_base_model
from potstill.files import write_json
from potstill.student.io import save_student
from potstill.student.model import DistilRNN, StudentConfig
from potstill.student.tokenizer import train_tokenizer

SENTENCES = load_corpus("minicola").splits["dev"].sentences[:150]
LABELS = ["bad", "good"]
VERSIONS = {"potstill": "0"}


def write_student(folder: Path, word_head: bool = True, max_length: int = 16) -> Path:
    """Write a student as a run leaves it; return its folder."""
    tokenizer = train_tokenizer(SENTENCES, 500)
    torch.manual_seed(0)
    config = StudentConfig(
        embedding_size=12,
        hidden_size=16,
        vocab_size=tokenizer.get_vocab_size(),
        classes=2,
        word_head=word_head,
    )
    folder.mkdir()
    save_student(DistilRNN(config), tokenizer, folder)
    about = {
        "labels": LABELS,
        "max_length": max_length,
        "student": vars(config),
        "versions": VERSIONS,
    }
    (folder / "config.json").write_text(json.dumps(about))
    return folder


@pytest.fixture
def student(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Folder of a student as a run leaves it; a parameter False leaves out its word head."""
    return write_student(tmp_path / "student", getattr(request, "param", True))


@pytest.fixture
def adapter(tmp_path: Path, tiny_gpt2: Path) -> Path:
    """Folder of an adapter as a run leaves it, on the tiny GPT-2."""
    base_model = find_base_model(str(tiny_gpt2))
    torch.manual_seed(0)
    model = build_lora_classifier(base_model.base(), 2, rank=2, alpha=4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_adapter(model, folder, str(base_model.folder))
    about = {"labels": LABELS, "max_length": 32, "start_token": 0, "versions": VERSIONS}
    write_json(folder / "config.json", about | {"decoder": base_model.describe()})
    return folder
