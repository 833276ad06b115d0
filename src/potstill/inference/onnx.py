"""An exported student without torch: onnxruntime, tokenizers and numpy are enough."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from potstill.data.text import word_ends
from potstill.errors import UserError
from potstill.files import STUDENT_ONNX, STUDENT_TOKENIZER, read_json
from potstill.inference.classifier import NO_WORD_HEAD, Classifier, check_texts
from potstill.student.tokenizer import encode_batch, truncated

BATCH_SIZE = 64


class OnnxClassifier(Classifier):
    """The exported student in `folder`.

    Raises:
        UserError: There is none, or it is damaged.
    """

    title = "DistilRNN"

    def __init__(self, folder: Path):
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self.config = read_json(folder / "config.json")
            self.classes_ = np.array([str(label) for label in self.config["labels"]])
            self.n_parameters = self.config.get("parameters", {}).get("total", 0)
            self.max_length = int(self.config["max_length"])
            self._session = onnxruntime.InferenceSession(
                str(folder / STUDENT_ONNX), options, ["CPUExecutionProvider"]
            )
            self._tokenizer = Tokenizer.from_file(str(folder / STUDENT_TOKENIZER))
            n_labels = len(self.classes_)
            outputs = {output.name: output.shape for output in self._session.get_outputs()}
            self._judges_words = "word_logits" in outputs
            if outputs["logits"][1] != n_labels:
                raise ValueError(f"config.json names {n_labels} labels, {STUDENT_ONNX} has others")
        except Exception as error:  # onnxruntime and tokenizers raise their own kinds
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise UserError(f"the exported student in {folder} can't be read: {reason}.") from error

    def logits(self, texts: str | Iterable[str]) -> np.ndarray:
        """Return the (N, classes) logits of N texts, fp32; one string counts as one text.

        Raises:
            UserError: A text is empty or not a string.
        """
        encodings = encode_batch(self._tokenizer, check_texts(texts))
        logits = np.empty((len(encodings), len(self.classes_)), np.float32)
        for indices, (batch_logits,) in self._batches(encodings, ["logits"]):
            logits[indices] = batch_logits
        return logits

    def word_logits(self, texts: str | Iterable[str]) -> list[np.ndarray]:
        """See `Classifier`."""
        if not self._judges_words:
            raise UserError(NO_WORD_HEAD)
        texts = check_texts(texts)
        encodings = encode_batch(self._tokenizer, texts)
        logits: list[np.ndarray] = [np.empty(0)] * len(texts)
        for indices, (whole, tokens) in self._batches(encodings, ["logits", "word_logits"]):
            for row, i in enumerate(indices):
                offsets = [end for _, end in encodings[i].offsets[: self.max_length]]
                ends = word_ends(texts[i], offsets)
                logits[i] = np.concatenate([tokens[row, ends], whole[row : row + 1]])
        return logits

    def truncated(self, texts: str | Iterable[str]) -> np.ndarray:
        return np.array(truncated(self._tokenizer, check_texts(texts), self.max_length), bool)

    def _batches(
        self, encodings: list[Any], outputs: list[str]
    ) -> Iterator[tuple[list[int], list[np.ndarray]]]:
        """Yield batches of texts of similar length: their indices, and the outputs of the graph."""
        tokens = [encoding.ids[: self.max_length] for encoding in encodings]
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        for start in range(0, len(order), BATCH_SIZE):
            indices = order[start : start + BATCH_SIZE]
            lengths = np.array([len(tokens[i]) for i in indices], np.int32)
            input_ids = np.zeros((len(indices), lengths.max()), np.int64)
            for row, i in enumerate(indices):
                input_ids[row, : lengths[row]] = tokens[i]
            yield indices, self._session.run(outputs, {"input_ids": input_ids, "lengths": lengths})
