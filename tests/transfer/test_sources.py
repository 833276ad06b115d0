"""Where sentences come from."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from potstill.transfer.dataset import read_transfer_set
from potstill.transfer.edited_source import EditedSource
from potstill.transfer.edits import EDITS, EditStats
from potstill.transfer.sentences import Candidate, Origin, SourceKind
from potstill.transfer.shards import list_shards
from potstill.transfer.sources import EarlierSentences, UserSource
from tests.transfer.sets import describe, labelled, write_set

NAMES = ["Ann", "Bob", "Mary", "Tom", "Eve"]


def test_earlier_sentences_shard_by_shard(set_folder: Path, tmp_path: Path) -> None:
    """Each once, though two shards have it, so that a later set lacks none."""
    more = ["Ann sleeps.", "it rains", "Birds sing.", "Dogs bark."]
    sampled = [labelled(sentence) for sentence in ("It rains.", *more)]
    edited = [labelled("It rain.", "edited:change_form", "It rains.")]
    rows = {SourceKind.SAMPLED: sampled, SourceKind.EDITED: edited}
    write_set(set_folder, describe(own=0, sampled=5, edited=1), rows)
    earlier = read_transfer_set(set_folder).select(without=[])

    shards = list_shards(tmp_path, describe(sampled=6) | {"shard_size": 2})
    sentences = EarlierSentences(earlier, SourceKind.SAMPLED)
    expected = [
        Candidate(s, Origin(SourceKind.SAMPLED))
        for s in ("It rains.", "Ann sleeps.", "Birds sing.", "Dogs bark.")
    ]
    assert list(map(sentences.candidates, shards)) == [expected[:2], expected[2:], []]
    assert sentences.suffice(shards[:2]) and not sentences.suffice(shards)
    edit = Candidate("It rain.", Origin(SourceKind.EDITED, ("change_form",)), "It rains.")
    assert EarlierSentences(earlier, SourceKind.EDITED).candidates(shards[0]) == [edit]
    assert EarlierSentences(earlier, SourceKind.USER).candidates(shards[0]) == []
    assert EarlierSentences(None, SourceKind.SAMPLED).candidates(shards[0]) == []


def test_user_sentences_follow_the_earlier_ones(tmp_path: Path) -> None:
    shards = list_shards(tmp_path, describe(own=5) | {"shard_size": 2})
    source = UserSource(NAMES)
    source.prepare(shards, shards)
    sentences = [[c.sentence for c in source.candidates(shard)] for shard in shards]
    assert sentences == [["Ann", "Bob"], ["Mary", "Tom"], ["Eve"]]
    assert source.top_k_targets(["Ann"]) is None
    assert all(map(source.is_incomplete, shards))
    shards[0].path.touch()
    assert list(map(source.is_incomplete, shards)) == [False, True, True]


@pytest.mark.parametrize("others", [[], ["Old dogs bark at every cat.", "Mary saw him there."]])
def test_edits_of_a_shard_depend_on_nothing_but_it(tmp_path: Path, others: list[str]) -> None:
    """A shard that is made again, alone, is the same."""
    text = ["The dog walks to the old house.", "He stops here.", "She sees them now and then."]
    description = describe(own=len(others), edited=4) | {"shard_size": 2}
    rows = {SourceKind.USER: [labelled(s, "own") for s in others], SourceKind.EDITED: []}
    write_set(tmp_path, description, rows)
    shards = list_shards(tmp_path, description)
    user, edited = (
        [shard for shard in shards if shard.kind is kind]
        for kind in (SourceKind.USER, SourceKind.EDITED)
    )

    def draw(number: int, source: EditedSource) -> list[Candidate]:
        candidates = source.candidates(edited[number])
        drawn: list[Candidate] = []
        for _ in range(5):
            part = list(itertools.islice(candidates, 20))
            # Long sentences get the second label.
            source.observe(
                [labelled(c.sentence, str(c.origin), c.parent, [20, len(c.sentence)]) for c in part]
            )
            drawn += part
        return drawn

    def source() -> EditedSource:
        made = EditedSource(3, text, 2, user)
        made.prepare(edited, edited)
        return made

    one = source()
    first, second = draw(0, one), draw(1, one)
    assert first != second
    assert draw(1, source()) == second
    assert {c.parent for c in first + second} <= {*text, *others}
    assert not others or {c.parent for c in first + second} & set(others)
    for candidate in first:
        assert candidate.origin.kind is SourceKind.EDITED and candidate.sentence
        assert len(candidate.origin.edits) in (1, 2) and set(candidate.origin.edits) <= set(EDITS)


def test_edits_that_lead_to_the_rare_label_become_more_probable() -> None:
    stats = EditStats.zero(2)
    np.testing.assert_allclose(stats.probs, 1 / len(EDITS))
    swaps = [labelled("Is it.", "edited:swap", "It is.", [1.0, 0.0])] * 2
    deletions = [labelled("Is.", "edited:delete swap", "It is.", [0.0, 1.0])] * 6
    after = stats.add(swaps).add(deletions)
    assert stats.counts.sum() == 0  # the first is as it was
    counts = dict(zip(EDITS, after.counts.tolist(), strict=True))
    assert counts["swap"] == [2, 6] and counts["delete"] == [0, 6]
    probs = dict(zip(EDITS, after.probs.tolist(), strict=True))
    assert sum(probs.values()) == pytest.approx(1)
    # The first label is the rare one; where nothing is known, both are as probable.
    assert probs["delete"] == pytest.approx(probs["move"] * (1 / 8) / (1 / 2))
    assert probs["swap"] == pytest.approx(probs["move"] * (3 / 10) / (1 / 2))
    # Edits of another version don't count.
    again = stats.add([labelled("It.", "edited:once", "It is.", [1.0, 0.0])])
    assert again.counts.sum() == 0


def test_edits_are_drawn_as_numpy_chooses() -> None:
    stats = EditStats.zero(2).add([labelled("Is it.", "edited:swap", "It is.", [1.0, 0.0])] * 9)
    ours, numpys = np.random.default_rng(3), np.random.default_rng(3)
    for size in (1, 2) * 50:
        assert stats.draw(size, ours) == numpys.choice(list(EDITS), size, p=stats.probs).tolist()
    assert ours.random() == numpys.random()


def test_edits_of_a_text_that_has_none_end(tmp_path: Path) -> None:
    shards = list_shards(tmp_path, describe(edited=4))
    source = EditedSource(1, ["?"], 2, [])
    source.prepare(shards, shards)
    assert list(source.candidates(shards[0])) == []
