"""A source that runs dry, and Python's garbage while shards are made."""

import gc
import itertools
from collections.abc import Iterator

import pytest

from potstill.recipes._shards import DRY, _without_garbage_collection, take_new
from potstill.transfer.duplicates import SeenSentences
from potstill.transfer.sentences import Candidate, Origin, SourceKind


def test_a_source_that_runs_dry_is_not_asked_without_end() -> None:
    asked = []

    def again_and_again() -> Iterator[Candidate]:
        for number in itertools.count():
            asked.append(number)
            yield Candidate(f"Sentence {number % 50}.", Origin(SourceKind.EDITED))

    seen = SeenSentences()
    assert len(take_new(again_and_again(), 500, 1_000_000, seen)) == 50
    assert len(asked) <= DRY + 2 * 500
    # A rare new one is waited for.
    rare = (Candidate(f"Rare {n // 900}.", Origin(SourceKind.EDITED)) for n in itertools.count())
    assert len(take_new(rare, 5, 10_000, SeenSentences())) == 5


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_collected_again_after_shards(enabled: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(KeyboardInterrupt), _without_garbage_collection():
            assert not gc.isenabled()
            raise KeyboardInterrupt
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
