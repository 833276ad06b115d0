"""An exported student without torch: numpy, tokenizers, and what runs it."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from potstill.data.text import word_ends
from potstill.errors import UserError
from potstill.files import STUDENT_ONNX, STUDENT_TOKENIZER
from potstill.inference.classifier import Classifier, check_finite, check_texts
from potstill.inference.engines import load_engine
from potstill.inference.explain import logits_of_beginnings
from potstill.manifest import check_manifest
from potstill.model_config import read_model_config
from potstill.ops.int8_library import cpus
from potstill.student.tokenizer import (
    encode,
    encode_batch,
    read_tokenizer,
    truncated,
    word_end_positions,
)

# Texts at a time: their encodings take ten times the memory of the texts.
TEXTS = 8192
TEXTS_OF_A_THREAD = 256  # at a time, where the engine leaves threads to its caller
REQUIRED = ("labels", "max_length")


class OnnxClassifier(Classifier):
    """The exported student in `folder`.

    Raises:
        UserError: There is none, or it is damaged.
    """

    title = "DistilRNN"

    def __init__(self, folder: Path):
        check_manifest(folder, ("config.json", STUDENT_ONNX, STUDENT_TOKENIZER))
        self.folder = folder
        try:
            self.config = read_model_config(folder / "config.json", required=REQUIRED)
            self.classes_ = np.array([str(label) for label in self.config["labels"]])
            self.n_parameters = (self.config.get("parameters") or {}).get("total") or 0
            self.max_length = self.config["max_length"]
            self.engine = load_engine(folder / STUDENT_ONNX)
            self._tokenizer = read_tokenizer(folder / STUDENT_TOKENIZER)
            # Of a token beyond the embedding nobody knows what would be read.
            self.engine.check_token(max(self._tokenizer.get_vocab().values(), default=0))
            if self.engine.n_labels != len(self.classes_):
                labels = len(self.classes_)
                raise ValueError(f"config.json names {labels} labels, {STUDENT_ONNX} has others")
        except Exception as error:  # onnxruntime and tokenizers raise their own kinds
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise UserError(f"the exported student in {folder} can't be read: {reason}.") from error

    def logits(self, texts: str | Iterable[str]) -> np.ndarray:
        """Return the (N, classes) logits of N texts, fp32; one string counts as one text.

        Raises:
            UserError: A text is empty or not a string, or the answers are not finite.
        """
        texts = check_texts(texts)
        logits = np.empty((len(texts), len(self.classes_)), np.float32)

        def answer(part: slice) -> None:
            tokens = encode(self._tokenizer, texts[part], self.max_length)
            logits[part] = self.engine.run(tokens)

        self._by_part(answer, len(texts))
        check_finite(logits, self.folder)
        return logits

    def word_logits(self, texts: str | Iterable[str]) -> list[np.ndarray]:
        """See `Classifier`."""
        texts = check_texts(texts)
        if not self.engine.judges_words:
            positions = word_end_positions(self._tokenizer, texts, self.max_length)
            return logits_of_beginnings(self.logits, texts, [len(ends) for ends in positions])
        logits = [np.empty(0, np.float32)] * len(texts)

        def answer(part: slice) -> None:
            encodings = encode_batch(self._tokenizer, texts[part])
            tokens = [encoding.ids[: self.max_length] for encoding in encodings]
            whole, words = self.engine.run_words(tokens)
            check_finite(whole, self.folder)
            for i, encoding in enumerate(encodings):
                offsets = [end for _, end in encoding.offsets[: self.max_length]]
                after = words[i][word_ends(texts[part.start + i], offsets)]
                logits[part.start + i] = np.concatenate([after, whole[i : i + 1]])

        self._by_part(answer, len(texts))
        return logits

    def _by_part(self, answer: Callable[[slice], None], total: int) -> None:
        """Call `answer` for every part of `total` texts, in threads where the engine has none."""
        size = TEXTS_OF_A_THREAD if self.engine.one_thread else TEXTS
        parts = [slice(start, start + size) for start in range(0, total, size)]
        threads = min(len(parts), cpus())
        if threads > 1 and self.engine.one_thread:
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(answer, parts))
        else:
            for part in parts:
                answer(part)

    def truncated(self, texts: str | Iterable[str]) -> np.ndarray:
        return np.array(truncated(self._tokenizer, check_texts(texts), self.max_length), bool)
