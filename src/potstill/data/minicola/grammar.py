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
LONGEST = 16

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
    """Words in lower case without their punctuation."""
    return [word.strip(".,?").lower() for word in sentence.split()]


def fit(pair: Pair) -> bool:
    """Whether a pair can be kept: two sentences, not too long, no word of content twice."""
    if pair.good == pair.bad:
        return False
    for text in pair:
        if "that that" in text:
            return False
        content = [word.rstrip("s") for word in tokens(text) if word not in FUNCTION_WORDS]
        if len(set(content)) < len(content) or not 3 <= len(tokens(text)) <= LONGEST:
            return False
    return True


def draw(r: Random, phenomena: dict[str, Phenomenon], size: int, seen: set[str]) -> list[str]:
    """Lines of one file: every phenomenon alike, of each the same share of unacceptable ones.

    Unacceptable sentences stand with their partner; further acceptable ones are good members of
    pairs like them, so that nothing but the violation tells the two kinds apart.
    """
    neighbours: list[list[str]] = []  # a pair stands together, as variants do in CoLA
    for i, (name, make) in enumerate(phenomena.items()):
        count = size // len(phenomena) + (i < size % len(phenomena))
        pairs = round(UNACCEPTABLE * count)
        kept = 0
        while kept < count - pairs:
            pair = make(r)
            alone = kept >= pairs
            texts = [pair.good] if alone else list(pair)
            if not fit(pair) or seen.intersection(pair):
                continue
            seen.update(texts)
            kept += 1
            lines = [f"{name}\t1\t\t{pair.good}\n"]
            if not alone:
                lines.append(f"{name}\t0\t*\t{pair.bad}\n")
            neighbours.append(lines)
    r.shuffle(neighbours)
    return [line for lines in neighbours for line in lines]


def write(folder: Path) -> None:
    """Writes the three files, the same bytes every time."""
    r = Random(SEED)
    seen: set[str] = set()
    for file, phenomena, size in (
        ("in_domain_train.tsv", IN_DOMAIN, TRAIN),
        ("in_domain_dev.tsv", IN_DOMAIN, DEV),
        ("out_of_domain_dev.tsv", OUT_OF_DOMAIN, OOD),
    ):
        text = "".join(draw(r, phenomena, size, seen))
        (folder / file).write_bytes(text.encode())
