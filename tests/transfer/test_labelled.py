"""The logits of a shard that was begun: kept, used again, damaged."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from potstill.transfer.labelled import LabelledSoFar

SENTENCES = ["Naïve birds sing.", "Cats.", "One two three."]


def rows(sentences: list[str]) -> list[np.ndarray]:
    """Logits that fp16 can't hold."""
    return [np.full((len(s.split()) + 1, 2), len(s) + 1 / 3, np.float32) for s in sentences]


def refuse(sentences: list[str]) -> list[np.ndarray]:
    raise AssertionError("they are known")


def interrupted(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), LabelledSoFar(path, 5.0) as labelled:
        labelled.label(SENTENCES, rows)
        raise KeyboardInterrupt


def test_what_was_labelled_is_not_labelled_again(tmp_path: Path) -> None:
    path = tmp_path / "sampled-00000.parquet"
    interrupted(path)
    with LabelledSoFar(path, 5.0) as labelled:
        for one, other in zip(labelled.label(SENTENCES, refuse), rows(SENTENCES), strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
        # A part that is not all there is labelled as a whole, as it was the first time.
        asked: list[str] = []

        def label(sentences: list[str]) -> list[np.ndarray]:
            asked.extend(sentences)
            return rows(sentences)

        labelled.label([SENTENCES[0], "New."], label)
        assert asked == [SENTENCES[0], "New."]
    labelled.remove()
    assert not list(tmp_path.iterdir())


def test_it_is_saved_as_often_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "sampled-00000.parquet"
    for minutes, there in ((5.0, False), (0.0, True)):
        labelled = LabelledSoFar(path, minutes)
        labelled.label(SENTENCES, rows)
        assert labelled.file.exists() == there


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def _edit(file: Path) -> None:
    body = bytearray(file.read_bytes())
    body[-1] ^= 1
    file.write_bytes(body)


@pytest.mark.parametrize("harm", [_cut, _edit, lambda file: file.write_bytes(b"")])
def test_a_damaged_file_is_not_used(
    tmp_path: Path, harm: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "potstill")
    path = tmp_path / "sampled-00000.parquet"
    interrupted(path)
    harm(LabelledSoFar(path, 5.0).file)
    with LabelledSoFar(path, 5.0) as labelled:
        assert "labelled.safetensors is damaged" in caplog.text
        with pytest.raises(AssertionError, match="they are known"):
            labelled.label(SENTENCES, refuse)
