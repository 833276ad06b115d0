"""How often the decisive word of an unacceptable sentence, and the one at which acceptability falls
most steeply, is the word that is wrong.

    python benchmarks/explain_minicola.py --model_path STUDENT [--teacher ADAPTER]

MiniCoLA's grammar makes unacceptable sentences in pairs with acceptable ones. The wrong word is the
first in which a sentence differs from its partner; where it has none, because words are missing at
the end, it is the last. Fresh sentences are drawn, of which none is in MiniCoLA's files.

Compared with it: its own verdicts on the sentence cut after each word (as many readings as there
are words), the teacher, and two answers without a model: a word at random, and the last word.
"""

import argparse
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np

from potstill.data.corpus import load_corpus
from potstill.data.minicola.grammar import IN_DOMAIN, OUT_OF_DOMAIN, draw
from potstill.files import write_json
from potstill.inference.classifier import Classifier
from potstill.inference.explain import Explanation, word_spans
from potstill.inference.load import load
from potstill.inference.teacher import load_teacher

SEED = 24
PHENOMENA = {"dev": IN_DOMAIN, "out of domain": OUT_OF_DOMAIN}
UNACCEPTABLE = "unacceptable"


def wrong_word(good: str, bad: str) -> int:
    """Return the index of the first word of `bad` that differs from `good`, else of the last."""
    pairs = zip(good.split(), bad.split(), strict=False)
    differences = [i for i, (one, other) in enumerate(pairs) if one != other]
    return differences[0] if differences else len(bad.split()) - 1


def draw_pairs(split: str, size: int) -> list[tuple[str, str, str]]:
    """Return fresh pairs: the phenomenon, the acceptable sentence and the unacceptable one."""
    seen = {s for part in load_corpus("minicola").splits.values() for s in part.sentences}
    lines = draw(Random(SEED), PHENOMENA[split], size, seen)
    rows = [line.rstrip("\n").split("\t") for line in lines]
    return [(bad[0], good[3], bad[3]) for good, bad in pairwise(rows) if bad[1] == "0"]


def decisive_words(explanations: list[Explanation], unacceptable: int) -> np.ndarray:
    """Return the decisive word of each sentence for the class `unacceptable`, whatever it is
    called."""
    words = [replace(e, label=e.classes[unacceptable]).decisive for e in explanations]
    return np.array([word or 0 for word in words])


def steepest_words(explanations: list[Explanation], unacceptable: int) -> np.ndarray:
    """Return of each sentence the word after which it is less acceptable than before by most."""
    rises = [np.diff(e.word_probabilities[:, unacceptable]) for e in explanations]
    return np.array([1 + int(r.argmax()) if len(r) else 0 for r in rises])


def explain_by_prefixes(classifier: Classifier, sentences: list[str]) -> list[Explanation]:
    """Return explanations by the verdicts on each sentence cut after each word."""
    spans = [word_spans(sentence) for sentence in sentences]
    cut = [s[:end] for s, words in zip(sentences, spans, strict=True) for _, end in words]
    rows = classifier.predict_proba(cut)
    parts = np.split(rows, np.cumsum([len(words) for words in spans])[:-1])
    classes = tuple(classifier.classes_.tolist())
    return [
        Explanation(s, classes, UNACCEPTABLE, part[-1], words, part)
        for s, words, part in zip(sentences, spans, parts, strict=True)
    ]


def hit_rate(found: np.ndarray, wrong: np.ndarray, off_by: int = 0) -> tuple[float, float]:
    """Return the fraction of sentences whose word was found, and its standard error."""
    hits = np.abs(found - wrong) <= off_by
    return float(hits.mean()), float(hits.std() / np.sqrt(len(hits)))


def measure(split: str, size: int, student: Classifier, teacher: Classifier | None) -> dict:
    """Return the figures of one part of MiniCoLA."""
    pairs = draw_pairs(split, size)
    bad = [sentence for _, _, sentence in pairs]
    wrong = np.array([wrong_word(good, sentence) for _, good, sentence in pairs])
    lengths = np.array([len(sentence.split()) for sentence in bad])
    unacceptable = student.classes_.tolist().index(UNACCEPTABLE)
    called = student.logits(bad).argmax(1) == unacceptable
    explained = {
        "student": student.explain(bad),
        "student, sentence cut after each word": explain_by_prefixes(student, bad),
    }
    if teacher is not None:
        explained["teacher"] = teacher.explain(bad)
    answers = {}
    for name, explanations in explained.items():
        answers[name] = decisive_words(explanations, unacceptable)
        answers[f"{name}: steepest fall"] = steepest_words(explanations, unacceptable)
    answers["the last word"] = lengths - 1
    chance = {"exact": float((1 / lengths).mean())}
    chance["within one word"] = float(
        np.mean(
            [(np.abs(np.arange(n) - w) <= 1).mean() for n, w in zip(lengths, wrong, strict=True)]
        )
    )
    figures: dict = {"sentences": len(bad), "called unacceptable": float(called.mean())}
    for name, found in answers.items():
        exact, error = hit_rate(found, wrong)
        figures[name] = {
            "exact": exact,
            "standard error": error,
            "within one word": hit_rate(found, wrong, 1)[0],
            "exact, of those called unacceptable": hit_rate(found[called], wrong[called])[0],
        }
    figures["a word at random"] = chance
    phenomena = np.array([phenomenon for phenomenon, _, _ in pairs])
    figures["student by phenomenon"] = {
        name: hit_rate(answers["student"][phenomena == name], wrong[phenomena == name])[0]
        for name in PHENOMENA[split]
    }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_path", type=Path, required=True)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--size", type=int, default=5000, help="sentences to draw, of each part")
    parser.add_argument("--output", type=Path, help="file for the figures, as JSON")
    args = parser.parse_args()
    student = load(args.model_path)
    teacher = load_teacher(args.teacher) if args.teacher else None
    results = {split: measure(split, args.size, student, teacher) for split in PHENOMENA}
    for split, figures in results.items():
        print(
            f"\n{split}: {figures['sentences']} unacceptable sentences, of which the student "
            f"calls {100 * figures['called unacceptable']:.1f} % unacceptable"
        )
        for name, row in figures.items():
            if isinstance(row, dict) and "exact" in row:
                of_called = row.get("exact, of those called unacceptable")
                print(
                    f"  {name:<54} {100 * row['exact']:5.1f} %   within one word "
                    f"{100 * row['within one word']:5.1f} %"
                    + (
                        f"   of those called unacceptable {100 * of_called:5.1f} %"
                        if of_called
                        else ""
                    )
                )
    if args.output:
        write_json(args.output, results)


if __name__ == "__main__":
    main()
