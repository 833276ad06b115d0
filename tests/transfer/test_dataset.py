"""The transfer set: read, in parts, unfinished, of another teacher."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from potstill.errors import UserError
from potstill.transfer.dataset import check_teacher, check_words, read_transfer_set
from potstill.transfer.sentences import Origin, SourceKind
from potstill.transfer.shards import DESCRIPTION, read_shard, write_shard


def test_read_without_duplicates(set_folder: Path) -> None:
    transfer_set = read_transfer_set(set_folder)
    assert transfer_set.sentences == ["It rains.", "Tom „ran“\u2028off.", "It rain."]
    assert transfer_set.origins == [
        Origin(SourceKind.SAMPLED),
        Origin(SourceKind.SAMPLED),
        Origin(SourceKind.EDITED, ("change_form",)),
    ]
    assert transfer_set.parents == ["", "", "It rains."]
    np.testing.assert_allclose(transfer_set.logits, [[0.5, 1.5], [0.5, 1.5], [2, -1]])
    assert transfer_set.logits.dtype == np.float32
    pairs = zip(transfer_set.sentences, transfer_set.word_logits, strict=True)
    for sentence, word_logits in pairs:
        assert word_logits.tolist() == [[i, -0.5] for i in range(len(sentence.split()))]
        assert word_logits.dtype == np.float32
    assert transfer_set.kinds() == {"sampled": 2, "edited": 1}
    assert transfer_set.summary() == [
        "sampled: 2 sentences, labelled 0 % bad, 100 % good",
        "edited: 1 sentences, labelled 100 % bad, 0 % good",
    ]


def test_reading_loads_no_training_library(set_folder: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from potstill.transfer.dataset import read_transfer_set\n"
        f"assert len(read_transfer_set(Path({str(set_folder)!r})).sentences) == 3\n"
        "print({'torch', 'transformers', 'tokenizers', 'accelerate'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("set()\n", "")


def test_take_keeps_the_parts_of_a_sentence_together(set_folder: Path) -> None:
    transfer_set = read_transfer_set(set_folder)
    part = transfer_set.take([2, 0])
    assert part.sentences == ["It rain.", "It rains."]
    assert part.logits.tolist() == [[2, -1], [0.5, 1.5]]
    assert [len(word_logits) for word_logits in part.word_logits] == [2, 2]
    assert [origin.kind for origin in part.origins] == ["edited", "sampled"]
    assert part.parents == ["It rains.", ""]
    assert part.top_k == [None, None]
    assert transfer_set.take([]).logits.shape == (0, 2)


def test_without_leaves_out_sentences_and_their_edits(set_folder: Path) -> None:
    transfer_set = read_transfer_set(set_folder)
    assert transfer_set.without(["IT RAINS"]).sentences == ["Tom „ran“\u2028off."]
    fewer = transfer_set.without(["it rain."])
    assert fewer.sentences == transfer_set.sentences[:2]
    assert [len(word_logits) for word_logits in fewer.word_logits] == [2, 3]
    assert transfer_set.without(["Tom"]).sentences == transfer_set.sentences
    assert transfer_set.without([]).sha256() == transfer_set.sha256()
    assert transfer_set.sha256() != transfer_set.without(["it rain"]).sha256()


def test_hash_covers_the_logits_after_words(set_folder: Path) -> None:
    before = read_transfer_set(set_folder).sha256()
    file = set_folder / "sampled-00000.jsonl.gz"
    rows = read_shard(file, 2)
    rows[0].word_logits[1][0] += 1
    write_shard(file, rows)
    assert read_transfer_set(set_folder).sha256() != before


def test_sentences_without_logits_after_words_are_counted(set_folder: Path) -> None:
    file = set_folder / "sampled-00000.jsonl.gz"
    rows = read_shard(file, 2)
    check_words(read_transfer_set(set_folder), set_folder)
    write_shard(file, [rows[0], replace(rows[1], word_logits=[])])
    transfer_set = read_transfer_set(set_folder)
    assert [len(word_logits) for word_logits in transfer_set.word_logits] == [2, 0, 2]
    with pytest.raises(UserError, match=r"1 sentences .* `relabel`") as caught:
        check_words(transfer_set, set_folder)
    assert str(set_folder) in str(caught.value)


def test_another_teacher_is_refused(set_folder: Path) -> None:
    transfer_set = read_transfer_set(set_folder)
    check_teacher(transfer_set, set_folder, "a" * 64)
    with pytest.raises(UserError, match=r"by another teacher \(runs/LoRA-1, aaaaaaaaaaaa\)"):
        check_teacher(transfer_set, set_folder, "b" * 64)


def test_unfinished_set_is_refused(set_folder: Path) -> None:
    (set_folder / "edited-00000.jsonl.gz").unlink()
    with pytest.raises(UserError, match=r"unfinished: 1 of 2 shards are missing \(edited-00000"):
        read_transfer_set(set_folder)


def test_folder_without_a_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no transfer set"):
        read_transfer_set(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        '{"sentences": 3}',
        '{"sentences": {"others": 3}}',
        '{"sentences": {}, "shard_size": "2"}',
        "no JSON",
    ],
)
def test_damaged_description_is_named(set_folder: Path, text: str) -> None:
    (set_folder / DESCRIPTION).write_text(text)
    with pytest.raises(UserError, match=r"transfer\.json"):
        read_transfer_set(set_folder)
