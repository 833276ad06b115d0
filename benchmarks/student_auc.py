"""How well students tell what their teacher calls one class from what it calls the other.

    python benchmarks/student_auc.py --transfer_set SET MODEL [MODEL ...]

The sentences are those of a transfer set that none of the students has learnt from; of a set that
was made with another seed, those that stand in `--learnt` are left out. The area under the ROC
curve scatters less than the scores on a dev set: there are more sentences, and nothing is counted
as right or wrong. The second line of each student is about what `explain` says of the sentence up
to each of its words. The teacher must know two classes.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from potstill.inference.load import load
from potstill.transfer.dataset import read_transfer_set
from potstill.transfer.sentences import LabelledSentence


def unseen(transfer_set: Path, learnt: Path | None) -> list[LabelledSentence]:
    """Return the sentences of a set that are not in another."""
    others = list(read_transfer_set(learnt).select([]).sentences()) if learnt else []
    selection = read_transfer_set(transfer_set).select(without=others)
    masks = np.concatenate(selection.masks)
    pairs = zip(selection.transfer_set.rows(), masks, strict=True)
    return [row for row, chosen in pairs if chosen]


def nearness(p: np.ndarray, teacher_logits: np.ndarray) -> tuple[float, float]:
    """Return the AUC of (N,) probabilities of class 1 for what the teacher calls class 1, and the
    share of the sentences that both call the same."""
    positive = teacher_logits[:, 1] > teacher_logits[:, 0]
    return float(roc_auc_score(positive, p)), float(np.mean((p > 0.5) == positive))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--transfer_set", type=Path, required=True)
    parser.add_argument("--learnt", type=Path, help="the set that the students learnt from")
    args = parser.parse_args()
    rows = unseen(args.transfer_set, args.learnt)
    assert len(rows[0].logits) == 2, "the teacher must know two classes"
    sentences = [row.sentence for row in rows]
    teacher = np.array([row.logits for row in rows])
    teacher_words = np.concatenate([row.word_logits for row in rows])
    print(f"{len(sentences):,} sentences, {len(teacher_words):,} words")
    for folder in args.models:
        model = load(folder)
        explained = model.explain(sentences)
        words = np.concatenate([each.word_probabilities[:, 1] for each in explained])
        for name, p, logits in (
            ("whole sentences", model.predict_proba(sentences)[:, 1], teacher),
            ("up to each word", words, teacher_words),
        ):
            auc, same = nearness(p, logits)
            print(f"{folder}, {name}: AUC {auc:.4f}, the teacher's answer to {100 * same:.1f} %")


if __name__ == "__main__":
    main()
