"""The phenomena of each file of MiniCoLA, and the files themselves.

CoLA's format: source (here the phenomenon), label, mark ("*" for unacceptable), sentence.
"""

from pathlib import Path
from random import Random

from potstill.data.minicola import (
    agreement,
    arguments,
    clauses,
    held_out,
    held_out_clauses,
    questions,
    relatives,
)
from potstill.data.minicola.lexicon import FUNCTION_WORDS
from potstill.data.minicola.phrases import Pair, Phenomenon

SEED = 20
TRAIN, DEV, OOD = 3000, 500, 500
UNACCEPTABLE = 0.3
MAX_WORDS = 16

IN_DOMAIN: dict[str, Phenomenon] = {
    "subject_verb_agreement": agreement.subject_verb,
    "agreement_attractor": agreement.agreement_attractor,
    "agreement_relative_clause": agreement.agreement_relative,
    "agreement_coordination": agreement.coordination_agreement,
    "determiner_noun": agreement.determiner_noun,
    "reflexive": agreement.reflexive,
    "pronoun_case": agreement.pronoun_case,
    "transitivity": arguments.transitivity,
    "ditransitive": arguments.ditransitive,
    "verb_complement": arguments.verb_complement,
    "verb_form": arguments.verb_form,
    "auxiliary": arguments.auxiliary,
    "tense_time": arguments.tense_time,
    "wh_gap": questions.wh_gap,
    "inversion": questions.inversion,
    "island": questions.island,
    "negative_polarity": clauses.negative_polarity,
    "word_order": clauses.word_order,
    "coordination": clauses.coordination,
    "relative_gap": relatives.relative_gap,
    "relative_pronoun": relatives.relative_pronoun,
}
OUT_OF_DOMAIN: dict[str, Phenomenon] = {
    "passive": held_out.passive,
    "there_insertion": held_out.there_insertion,
    "comparative": held_out.comparative,
    "mass_count": held_out.mass_count,
    "tough_movement": held_out.tough_movement,
    "raising": held_out.raising,
    "imperative": held_out_clauses.imperative,
    "tag_question": held_out_clauses.tag_question,
    "ellipsis": held_out_clauses.ellipsis,
    "wh_island": held_out_clauses.wh_island,
}


def tokens(sentence: str) -> list[str]:
    """Return the words of a sentence in lower case, without punctuation."""
    return [word.strip(".,?").lower() for word in sentence.split()]


def fit(pair: Pair) -> bool:
    """Return True if a pair can be used: its sentences differ, are not too long, and repeat no
    content word."""
    if pair.good == pair.bad:
        return False
    for text in pair:
        if "that that" in text:
            return False
        content = [word.rstrip("s") for word in tokens(text) if word not in FUNCTION_WORDS]
        if len(set(content)) < len(content) or not 3 <= len(tokens(text)) <= MAX_WORDS:
            return False
    return True


def draw(r: Random, phenomena: dict[str, Phenomenon], size: int, seen: set[str]) -> list[str]:
    """Return the lines of one file: equally many of each phenomenon, with the same fraction of
    unacceptable sentences.

    Unacceptable sentences come with their partner. The other acceptable ones are the good members
    of pairs of the same kind, so that nothing but the violation tells the labels apart.
    """
    blocks: list[list[str]] = []  # the lines of a pair stay together, like variants in CoLA
    for i, (name, make) in enumerate(phenomena.items()):
        count = size // len(phenomena) + (i < size % len(phenomena))
        pairs = round(UNACCEPTABLE * count)
        drawn = 0
        while drawn < count - pairs:
            pair = make(r)
            alone = drawn >= pairs
            texts = [pair.good] if alone else list(pair)
            if not fit(pair) or seen.intersection(pair):
                continue
            seen.update(texts)
            drawn += 1
            lines = [f"{name}\t1\t\t{pair.good}\n"]
            if not alone:
                lines.append(f"{name}\t0\t*\t{pair.bad}\n")
            blocks.append(lines)
    r.shuffle(blocks)
    return [line for lines in blocks for line in lines]


def write(folder: Path) -> None:
    """Write the three files; the bytes are the same every time."""
    r = Random(SEED)
    seen: set[str] = set()
    for file, phenomena, size in (
        ("in_domain_train.tsv", IN_DOMAIN, TRAIN),
        ("in_domain_dev.tsv", IN_DOMAIN, DEV),
        ("out_of_domain_dev.tsv", OUT_OF_DOMAIN, OOD),
    ):
        text = "".join(draw(r, phenomena, size, seen))
        (folder / file).write_bytes(text.encode())
