"""Give an exported student that judges no words the layer that does.

    python benchmarks/fit_word_head.py --transfer_set SET --output FOLDER [--model_path STUDENT]

`distil` trains this layer with the network. The first versions dropped it when they saved. Here the
network is rebuilt from the 8-bit file and stays as it is; a linear layer on its last states learns
the word loss of `distil` on a transfer set, whose teacher should be the student's. All that the
student's file held must be in the new one byte for byte, and its answers must be the same.

Sentences that are held out show how near the layer comes to the teacher, in 8 bits as `explain`
answers. To compare: the student's verdicts on the sentence cut after each word, and one
probability for all words, the median.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from explain_minicola import explain_by_prefixes
from sklearn.metrics import roc_auc_score
from tokenizers import Tokenizer
from torch import Tensor

from potstill.calibration import probabilities
from potstill.distillation.losses import soft_losses
from potstill.distillation.word_targets import word_targets
from potstill.files import STUDENT_ONNX, STUDENT_TOKENIZER, read_json, write_json
from potstill.inference.classifier import Classifier
from potstill.inference.load import load
from potstill.inference.student import StudentClassifier
from potstill.pretrained import COLA
from potstill.settings import DistilSettings
from potstill.student.io import save_student
from potstill.student.model import DistilRNN, StudentConfig
from potstill.student.onnx_file import matrix, network_weights, read_onnx
from potstill.student.tokenizer import encode, word_end_positions
from potstill.transfer.dataset import read_transfer_set
from potstill.transfer.sentences import LabelledSentence

PROBES = 1000  # sentences on which the answers must be the same


def rebuild(folder: Path) -> DistilRNN:
    """Return the network of a student exported in 8 bits, with a new word head."""
    config = StudentConfig(**read_json(folder / "config.json")["student"])
    model = DistilRNN(replace(config, word_head=True)).eval()
    tensors = read_onnx((folder / STUDENT_ONNX).read_bytes()).tensors

    arrays = network_weights(tensors, config.cell, config.layers)
    arrays |= {"score.weight": matrix(tensors, "score"), "score.bias": tensors["bias"]}
    weights = {name: torch.tensor(array) for name, array in arrays.items()}
    model.load_state_dict(model.state_dict() | weights)
    return model


@torch.no_grad()
def read_words(
    model: DistilRNN, tokenizer: Tokenizer, rows: list[LabelledSentence], max_length: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return of all W words the (W, width) states at their last tokens, the teacher's (W, classes)
    logits after them, and (W,) how many words their sentences have."""
    rows = sorted(rows, key=lambda row: len(row.sentence))
    parts = []
    for start in range(0, len(rows), 256):
        sentences = [row.sentence for row in rows[start : start + 256]]
        logits = [np.array(row.word_logits) for row in rows[start : start + 256]]
        targets = word_targets(word_end_positions(tokenizer, sentences, max_length), logits)
        words = targets.batch(torch.arange(len(sentences)))
        tokens = [torch.tensor(ids) for ids in encode(tokenizer, sentences, max_length)]
        input_ids = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
        states = model.states(input_ids, torch.tensor([len(ids) for ids in tokens]))
        parts.append((states[words.rows, words.positions], words.teacher_logits, words.counts))
    states, teacher_logits, counts = map(torch.cat, zip(*parts, strict=True))
    return states, teacher_logits, counts


def fit(head: torch.nn.Linear, states: Tensor, teacher_logits: Tensor, counts: Tensor) -> float:
    """Minimise `distil`'s word loss, the mean over the words of a sentence and over the sentences,
    by L-BFGS, as it is convex; return it."""
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=500, line_search_fn="strong_wolfe")
    weights = 1 / counts / (1 / counts).sum()

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = weights @ soft_losses(head(states), teacher_logits, DistilSettings())
        value.backward()
        return value

    optimizer.step(loss)
    return loss().item()


def check_same(before: Path, after: Path, sentences: list[str]) -> None:
    """Check that an exported student has all constants of another and answers as it does."""
    old, new = (read_onnx((f / STUDENT_ONNX).read_bytes()).tensors for f in (before, after))
    changed = [name for name in old if old[name].tobytes() != new[name].tobytes()]
    difference = np.abs(load(before).logits(sentences) - load(after).logits(sentences)).max()
    if changed or not difference <= 1e-6:
        raise RuntimeError(f"changed: {changed}; logits differ by {difference}")


def nearness(student: Classifier, rows: list[LabelledSentence]) -> dict[str, tuple[float, float]]:
    """Return of each answer the AUC (does the teacher hold class 1 the more probable?) and the mean
    absolute error of the probability of class 1, over all words."""
    sentences = [row.sentence for row in rows]
    teacher = np.concatenate([probabilities(np.array(row.word_logits))[:, 1] for row in rows])
    both = student.explain(sentences), explain_by_prefixes(student, sentences)
    layer, cut = (np.concatenate([e.word_probabilities[:, 1] for e in each]) for each in both)
    same = np.full(len(teacher), np.median(teacher))
    return {
        name: (roc_auc_score(teacher > 0.5, p), float(np.abs(p - teacher).mean()))
        for name, p in (("layer", layer), ("sentence cut", cut), ("one for all words", same))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--transfer_set", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder for the student")
    parser.add_argument("--model_path", type=Path, default=COLA, help="ONNX of 8 bits")
    parser.add_argument("--held_out", type=int, default=3000, help="sentences to report on")
    args = parser.parse_args()
    config = read_json(args.model_path / "config.json")
    transfer_set = read_transfer_set(args.transfer_set)
    assert transfer_set.labels == config["labels"], "set and student are of other classes"
    order = np.random.default_rng(0).permutation(len(transfer_set))
    held_out, learnt = (transfer_set.take(part) for part in np.split(order, [args.held_out]))

    model = rebuild(args.model_path)
    tokenizer = Tokenizer.from_file(str(args.model_path / STUDENT_TOKENIZER))
    words = read_words(model, tokenizer, learnt, config["max_length"])
    assert model.word_score is not None
    loss = fit(model.word_score, *words)
    print(f"{len(learnt):,} sentences, {len(words[0]):,} words: a loss of {loss:.4f}")

    config["student"]["word_head"] = True
    total = sum(p.numel() for p in model.parameters())
    config["parameters"] = {"total": total, "trainable": total}
    probes = [row.sentence for row in held_out[:PROBES]]
    with tempfile.TemporaryDirectory() as folder:
        save_student(model, tokenizer, Path(folder))
        write_json(Path(folder) / "config.json", config)
        StudentClassifier(Path(folder)).export_onnx(args.output, int8=True, texts=probes)
    check_same(args.model_path, args.output, probes)
    for name, (auc, error) in nearness(load(args.output), held_out).items():
        print(f"{name:<20} AUC {auc:.3f}   mean absolute error {error:.3f}")


if __name__ == "__main__":
    main()
