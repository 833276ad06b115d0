"""The transfer set: opened, read, in parts, unfinished, of another teacher."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from potstill.errors import UserError
from potstill.transfer.dataset import check_teacher, check_top_k, check_words, read_transfer_set
from potstill.transfer.sentences import Origin, SourceKind
from potstill.transfer.shards import DESCRIPTION, read_shard, write_shard
from tests.transfer.sets import describe, labelled, some_top_k, write_set

SAMPLED, EDITED = "sampled-00000.parquet", "edited-00000.parquet"


def test_rows_and_counts(set_folder: Path) -> None:
    transfer_set = read_transfer_set(set_folder)
    rows = list(transfer_set.rows())
    assert [row.sentence for row in rows] == [
        "It rains.",
        "Tom „ran“\u2028off.",
        "It rain.",
        "it  rains",
    ]
    assert rows[2].origin == Origin(SourceKind.EDITED, ("change_form",))
    assert [row.parent for row in rows] == ["", "", "It rains.", "It rains."]
    assert [row.logits for row in rows] == [[0.5, 1.5], [0.5, 1.5], [2, -1], [0.5, 1.5]]
    for row in rows:
        assert row.word_logits == [[i, -0.5] for i in range(len(row.sentence.split()))]
    assert len(transfer_set) == 4
    assert transfer_set.summary() == [
        "sampled: 2 sentences, labelled 0 % bad, 100 % good",
        "edited: 2 sentences, labelled 50 % bad, 50 % good",
    ]


def test_reading_loads_no_training_library(set_folder: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from potstill.transfer.dataset import read_transfer_set\n"
        f"assert len(list(read_transfer_set(Path({str(set_folder)!r})).rows())) == 4\n"
        "print({'torch', 'transformers', 'tokenizers', 'accelerate'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("set()\n", "")


def test_take_reads_sentences_of_several_shards(set_folder: Path) -> None:
    taken = read_transfer_set(set_folder).take(np.array([3, 0, 2, 0]))
    sentences = ["it  rains", "It rains.", "It rain.", "It rains."]
    assert [row.sentence for row in taken] == sentences
    assert read_transfer_set(set_folder).take(np.array([], int)) == []


@pytest.mark.parametrize(
    ("without", "chosen"),
    [
        # "it  rains" is in the set twice.
        ([], ["It rains.", "Tom „ran“\u2028off.", "It rain."]),
        # An edit of a sentence that is left out is left out, too.
        (["IT RAINS"], ["Tom „ran“\u2028off."]),
        (["it rain."], ["It rains.", "Tom „ran“\u2028off."]),
        (["Tom"], ["It rains.", "Tom „ran“\u2028off.", "It rain."]),
    ],
)
def test_select(set_folder: Path, without: list[str], chosen: list[str]) -> None:
    selection = read_transfer_set(set_folder).select(without=without)
    assert list(selection.sentences()) == chosen
    assert len(selection) == len(chosen)
    assert (selection.duplicates, selection.excluded) == (1, 3 - len(chosen))
    edited = sum(sentence == "It rain." for sentence in chosen)
    assert selection.kinds() == {"sampled": len(chosen) - edited, "edited": edited}


def test_sentences_up_to_a_limit_are_of_every_shard(tmp_path: Path) -> None:
    rows = [labelled(f"Sentence number {i}.") for i in range(30)]
    write_set(tmp_path, describe(sampled=30) | {"shard_size": 10}, {SourceKind.SAMPLED: rows})
    selection = read_transfer_set(tmp_path).select(without=[])
    numbers = [int(s.split()[-1][:-1]) for s in selection.sentences(limit=9)]
    assert numbers == [0, 1, 2, 10, 11, 12, 20, 21, 22]


def test_part_of_a_kind_with_its_targets(tmp_path: Path) -> None:
    rows = [labelled(s) for s in ("One.", "Two.", "one", "Three.", "Four.", "Five.")]
    description = describe(sampled=6, edited=0) | {"shard_size": 2}
    write_set(tmp_path, description, {SourceKind.SAMPLED: rows})
    targets = some_top_k(3)
    write_shard(tmp_path / "sampled-00001.parquet", rows[2:4], 2, [None, targets])
    selection = read_transfer_set(tmp_path).select(without=[])
    for start in range(6):
        for stop in range(7):
            part = selection.part(SourceKind.SAMPLED, start, stop)
            found = [row.labelled.sentence for row in part]
            assert found == ["One.", "Two.", "Three.", "Four.", "Five."][start:stop]
            with_targets = [row.labelled.sentence for row in part if row.top_k]
            assert with_targets == ["Three."][: "Three." in found]
    assert selection.part(SourceKind.USER, 0, 9) == []
    top_k = selection.part(SourceKind.SAMPLED, 2, 3)[0].top_k
    assert top_k is not None
    np.testing.assert_array_equal(top_k.token_ids, targets.token_ids)


def test_hash_covers_the_logits_after_words(set_folder: Path) -> None:
    before = read_transfer_set(set_folder).sha256()
    assert read_transfer_set(set_folder).sha256() == before
    rows = read_shard(set_folder / SAMPLED, 2)
    rows[0].word_logits[1][0] += 1
    write_shard(set_folder / SAMPLED, rows, 2)
    assert read_transfer_set(set_folder).sha256() != before


def test_sentences_without_logits_after_words_are_counted(set_folder: Path) -> None:
    file = set_folder / SAMPLED
    rows = read_shard(file, 2)
    check_words(read_transfer_set(set_folder))
    write_shard(file, [rows[0], replace(rows[1], word_logits=[])], 2)
    transfer_set = read_transfer_set(set_folder)
    assert [len(row.word_logits) for row in transfer_set.rows()] == [2, 0, 2, 2]
    with pytest.raises(UserError, match=r"1 sentences .* `relabel`") as caught:
        check_words(transfer_set)
    assert str(set_folder) in str(caught.value)


def test_sampled_sentences_without_top_k_targets_are_counted(set_folder: Path) -> None:
    file = set_folder / SAMPLED
    rows = read_shard(file, 2)
    assert not read_transfer_set(set_folder).has_top_k
    with pytest.raises(UserError, match=r"2 sampled sentences .* lack"):
        check_top_k(read_transfer_set(set_folder))
    write_shard(file, rows, 2, [some_top_k(2), None])
    assert read_transfer_set(set_folder).has_top_k
    with pytest.raises(UserError, match=r"1 sampled sentences .* lack"):
        check_top_k(read_transfer_set(set_folder))
    write_shard(file, rows, 2, [some_top_k(2), some_top_k(0)])
    check_top_k(read_transfer_set(set_folder))


def test_another_teacher_is_refused(set_folder: Path) -> None:
    transfer_set = read_transfer_set(set_folder)
    check_teacher(transfer_set, "a" * 64)
    with pytest.raises(UserError, match=r"by another teacher \(runs/LoRA-1, aaaaaaaaaaaa\)"):
        check_teacher(transfer_set, "b" * 64)


def test_unfinished_set_is_refused(set_folder: Path) -> None:
    (set_folder / EDITED).unlink()
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
