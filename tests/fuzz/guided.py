"""Coverage-guided fuzzing of one reader, in a process of its own, which test_guided.py starts:

    python -m tests.fuzz.guided READER FOLDER TINY_GPT2 [FLAGS OF LIBFUZZER]

libFuzzer keeps the cases that reach new code and goes on from them. What it finds lies in FOLDER as
crash-…; such a file belongs into corpora/.
"""

import sys
from functools import partial
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["potstill"]):
    from tests.fuzz.mutation import one_of
    from tests.fuzz.readers import attempt, make_readers


def mutated(body: bytes, most: int, seed: int) -> bytes:
    """Half of the cases are libFuzzer's own, the others those of mutation.py, which knows JSON."""
    random = Random(seed)
    if random.random() < 0.5:
        return atheris.Mutate(body, most)
    return one_of([body], random)[:most]


def main() -> None:
    name, folder, tiny_gpt2, *flags = sys.argv[1:]
    reader = make_readers(Path(folder), Path(tiny_gpt2))[name]()
    seeds = Path(folder) / "seeds"
    seeds.mkdir()
    for number, sample in enumerate(reader.samples):
        (seeds / str(number)).write_bytes(sample)

    most = 2 * max(map(len, reader.samples)) + 64
    own = [f"-max_len={most}", "-timeout=10", f"-artifact_prefix={folder}/"]
    atheris.Setup(
        [sys.argv[0], *own, *flags, str(seeds)], partial(attempt, reader), custom_mutator=mutated
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
