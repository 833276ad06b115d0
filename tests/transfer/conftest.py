"""A small transfer set, and a language model whose sentences are short."""

from pathlib import Path

import pytest

from potstill.decoder.hub import BaseModel
from potstill.decoder.language_model import LanguageModel
from potstill.transfer.sentences import SourceKind
from tests.transfer.language_models import language_model, most_probable_first_token
from tests.transfer.sets import describe, labelled, write_set


@pytest.fixture
def set_folder(tmp_path: Path) -> Path:
    """Folder of a set of two sampled sentences and two edited ones."""
    sampled = [labelled("It rains."), labelled("Tom „ran“\u2028off.")]
    edited = [
        labelled("It rain.", "edited:change_form", "It rains.", [2.0, -1.0]),
        labelled("it  rains", "edited:swap", "It rains."),
    ]
    rows = {SourceKind.SAMPLED: sampled, SourceKind.EDITED: edited}
    write_set(tmp_path, describe(own=0, sampled=2, edited=2), rows)
    return tmp_path


@pytest.fixture
def model(tiny_decoder: BaseModel) -> LanguageModel:
    """A tiny decoder with adapters, whose sentences end soon."""
    model = language_model(tiny_decoder)
    model.end = most_probable_first_token(model)
    return model
