"""Rubbish in every file that is read: a documented error, soon, in little memory.

`corpora` has a folder for each reader with the files that it once failed on.
"""

import resource
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.mutation import CASES, damaged
from tests.fuzz.readers import Reader, attempt, cases_of, make_readers

CORPORA = Path(__file__).parent / "corpora"
SECONDS = 10
MEMORY = 1 << 20  # kB that the process may grow by
NAMES = list(make_readers(Path(), Path()))

Makers = dict[str, Callable[[], Reader]]


@pytest.fixture(scope="module")
def makers(tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Path) -> Makers:
    made = make_readers(tmp_path_factory.mktemp("fuzz"), tiny_gpt2)
    return {name: cache(make) for name, make in made.items()}


def attempt_soon(reader: Reader, body: bytes) -> None:
    started = time.monotonic()
    attempt(reader, body)
    assert time.monotonic() - started < SECONDS


def fuzz(reader: Reader, cases: int) -> None:
    for sample in reader.samples:
        reader.read(sample)  # good as it is: what fails is the damage

    @settings(max_examples=cases, deadline=None, suppress_health_check=list(HealthCheck))
    @given(damaged(reader.samples))
    def case(body: bytes) -> None:
        attempt_soon(reader, body)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    case()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


@pytest.mark.parametrize(("name", "cases"), cases_of(NAMES, 2_000).items())
def test_rubbish_is_refused_in_a_sentence(name: str, cases: int, makers: Makers) -> None:
    fuzz(makers[name](), cases)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cases"), cases_of(NAMES, CASES).items())
def test_rubbish_in_quantity(name: str, cases: int, makers: Makers) -> None:
    fuzz(makers[name](), cases)


def failed_once() -> list[tuple[str, Path]]:
    return [(folder.name, file) for folder in CORPORA.iterdir() for file in folder.iterdir()]


@pytest.mark.parametrize(
    ("name", "file"), failed_once(), ids=lambda value: getattr(value, "name", value)
)
def test_what_failed_once(name: str, file: Path, makers: Makers) -> None:
    attempt_soon(makers[name](), file.read_bytes())
