"""The student without torch: onnxruntime, tokenizers and numpy are enough."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from potstill.errors import UserError
from potstill.files import STUDENT_ONNX, STUDENT_TOKENIZER

BATCH = 64


@dataclass(frozen=True)
class Predictor:
    """An exported student: `session` of onnxruntime, its tokenizer, the names of its classes."""

    title: str
    labels: tuple[str, ...]
    session: Any
    tokenizer: Any
    max_length: int

    def logits(self, sentences: Sequence[str]) -> np.ndarray:
        """N sentences to (N, classes), fp32."""
        tokens = [e.ids[: self.max_length] for e in self.tokenizer.encode_batch(list(sentences))]
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        found = np.empty((len(tokens), len(self.labels)), np.float32)
        for start in range(0, len(order), BATCH):
            index = order[start : start + BATCH]
            lengths = np.array([len(tokens[i]) for i in index], np.int32)
            input_ids = np.zeros((len(index), lengths.max()), np.int64)
            for row, i in enumerate(index):
                input_ids[row, : lengths[row]] = tokens[i]
            inputs = {"input_ids": input_ids, "lengths": lengths}
            found[index] = self.session.run(["logits"], inputs)[0]
        return found

    def probabilities(self, sentences: Sequence[str]) -> np.ndarray:
        """N sentences to (N, classes)."""
        logits = self.logits(sentences).astype(np.float64)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return shares / shares.sum(1, keepdims=True)


def load_predictor(folder: Path) -> Predictor:
    """An exported student in `folder`.

    Raises:
        UserError: none there, or a damaged one.
    """
    import onnxruntime
    from tokenizers import Tokenizer

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        labels, max_length = tuple(map(str, config["labels"])), int(config["max_length"])
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        file = str(folder / STUDENT_ONNX)
        session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
        tokenizer = Tokenizer.from_file(str(folder / STUDENT_TOKENIZER))
        if session.get_outputs()[0].shape[1] != len(labels):
            raise ValueError(f"config.json names {len(labels)} labels, {STUDENT_ONNX} has others")
    except Exception as error:  # onnxruntime and tokenizers raise their own kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"the exported student in {folder} can't be read: {reason}.") from error
    return Predictor(config.get("title", "DistilRNN"), labels, session, tokenizer, max_length)
