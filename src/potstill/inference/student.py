"""A student, run by torch."""

import logging
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from potstill.data.batching import Batch
from potstill.data.corpus import load_corpus
from potstill.errors import UserError
from potstill.files import (
    ADAPTER_CONFIG,
    RESULTS,
    STUDENT_ONNX,
    STUDENT_TOKENIZER,
    STUDENT_WEIGHTS,
    amended_manifest,
    atomic_folder,
    check_replaceable,
    check_writable,
    read_json,
    read_results,
    write_json,
)
from potstill.inference.classifier import Classifier, check_finite, check_texts
from potstill.inference.explain import logits_of_beginnings
from potstill.inference.onnx import OnnxClassifier
from potstill.locks import exclusive
from potstill.model_card import CARD, Kind, write_card
from potstill.student.io import load_student, save_student
from potstill.student.tokenizer import encode, truncated, word_end_positions
from potstill.training.distributed import predict, predict_logits, process

STAGING = ".potstill-"  # folders where an export is prepared
# As far as rounding may take a logit of the exported student, of fp32 and of 8-bit matrices, as a
# fraction of the largest logit: of many classes these are large, and rounding grows with them.
MAX_LOGIT_ERROR = {False: 1e-3, True: 0.1}
# What an exported student's config.json has: nothing about folders of the machine it is from.
EXPORTED_KEYS = (
    *("SR", "labels", "max_length", "student", "parameters", "versions"),
    # The weights have the temperature; this is for readers. The decision is for `predict`.
    *("calibration", "decision"),
)
MAX_FLIPPED = 0.01  # of the labels, before `export_onnx` warns
PROBES = 1000  # texts that an exported student is compared on, where there are as many

logger = logging.getLogger(__name__)


class StudentClassifier(Classifier):
    """The student in `folder`.

    Raises:
        UserError: There is none, or it is damaged.
    """

    title = "DistilRNN"

    def __init__(self, folder: Path):
        self.folder = folder
        self.model, self.tokenizer, self.config = load_student(folder)
        self.results = read_results(folder)
        self.model.to(process().device)
        self.classes_ = np.array([str(label) for label in self.config["labels"]])
        self.max_length = int(self.config["max_length"])
        self.n_parameters = sum(p.numel() for p in self.model.parameters())

    def logits(self, texts: str | Iterable[str], *, together: bool = True) -> np.ndarray:
        """Return the (N, classes) logits of N texts, fp32; one string counts as one text.

        Args:
            texts: One string, or a list, an array or a column of a table with N strings.
            together: Of several processes with the same texts, share the work; False where each
                has texts of its own.

        Raises:
            UserError: A text is empty or not a string, or the answers are not finite.
        """
        texts = check_texts(texts)
        if not texts:
            return np.empty((0, len(self.classes_)), np.float32)
        tokens = encode(self.tokenizer, texts, self.max_length)
        logits = predict_logits(self.model, tokens, together=together).numpy()
        check_finite(logits, self.folder)
        return logits

    def truncated(self, texts: str | Iterable[str]) -> np.ndarray:
        cut = truncated(self.tokenizer, check_texts(texts), self.max_length)
        return np.array(cut, bool)

    def word_logits(self, texts: str | Iterable[str], *, together: bool = True) -> list[np.ndarray]:
        """See `Classifier`; `together` is as in `logits`."""
        texts = check_texts(texts)
        positions = word_end_positions(self.tokenizer, texts, self.max_length)
        if self.model.word_score is None:
            return logits_of_beginnings(self.logits, texts, [len(ends) for ends in positions])
        tokens = encode(self.tokenizer, texts, self.max_length)

        def after_each_word(batch: Batch) -> list[Tensor]:
            whole, after = self.model.word_logits(batch.input_ids, batch.lengths)
            return [
                torch.cat([after[row, positions[i]], whole[row : row + 1]]).float().cpu()
                for row, i in enumerate(batch.indices.tolist())
            ]

        logits = predict(self.model, tokens, after_each_word, together=together)
        return [text_logits.numpy() for text_logits in logits]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the student to `folder`, whole or not at all; `load` reads it.

        An earlier model in `folder` is replaced.

        Raises:
            UserError: `folder` holds anything but a model, or can't be written.
        """
        folder = Path(folder)
        check_replaceable(folder, "`folder`")
        check_writable(folder.parent, "`folder`")
        with atomic_folder(folder) as staging:
            save_student(self.model, self.tokenizer, staging)
            write_json(staging / "config.json", self.config)
            if self.results:
                write_json(staging / RESULTS, self.results)
            write_card(staging, "student", self.config, self.results)

    def export_onnx(
        self, folder: str | Path, int8: bool = False, texts: Sequence[str] = ()
    ) -> OnnxClassifier:
        """Write the student as ONNX, with all that runs it without torch, and compare the two.

        Args:
            folder: May be the student's own.
            int8: Store matrices as 8-bit integers, a quarter of the size; on most CPUs potstill
                computes with them as they are, many times faster.
            texts: What the two are compared on, 500 or more of the student's own kind. Default:
                MiniCoLA's dev sentences, which are English.

        Returns:
            The exported student, loaded.

        Raises:
            UserError: `folder` holds another model, or can't be written.
            RuntimeError: The exported student's logits are not the same but for rounding; nothing
                is written then.
        """
        from potstill.student.onnx import write_onnx

        folder = Path(folder)
        own = self._is_in(folder)
        if not own and any((folder / f).exists() for f in (STUDENT_WEIGHTS, ADAPTER_CONFIG)):
            raise UserError(f"{folder} holds another model; name another folder.")
        check_writable(folder, "`folder`")
        with (
            exclusive(folder, "`folder`"),
            tempfile.TemporaryDirectory(prefix=STAGING, dir=folder) as temporary,
        ):
            staging = Path(temporary)
            for left in folder.glob(f"{STAGING}*"):  # by an export that was killed
                if left.name != staging.name:  # from Python 3.12 on, its path is absolute
                    shutil.rmtree(left, ignore_errors=True)
            write_onnx(self.model, staging / STUDENT_ONNX, int8)
            self.tokenizer.save(str(staging / STUDENT_TOKENIZER), pretty=False)
            exported = {key: self.config[key] for key in EXPORTED_KEYS if key in self.config}
            write_json(staging / "config.json", exported)
            exported_student = OnnxClassifier(staging)
            probes = spread(texts or load_corpus("minicola").splits["dev"].sentences, PROBES)
            difference, largest, flipped = self._compare(exported_student, probes)
            if not difference < MAX_LOGIT_ERROR[int8] * max(1.0, largest):
                raise RuntimeError(
                    f"the exported student answers otherwise: logits differ by {difference}"
                )
            names = (STUDENT_ONNX,) if own else (STUDENT_TOKENIZER, "config.json", STUDENT_ONNX)
            with amended_manifest(folder, (*names, CARD), unlisted=own):
                for name in names:
                    (staging / name).replace(folder / name)
                kind: Kind = "student" if own else "onnx"
                write_card(folder, kind, self.config, self.results, onnx=True)
        file = folder / STUDENT_ONNX
        size = file.stat().st_size / 1e6
        logger.info(
            f"exported: {file}, {size:.2f} MB; of {len(probes):,} texts {flipped} get another "
            f"label, logits differ by {difference:.1g} at most"
        )
        if flipped > MAX_FLIPPED * len(probes):
            logger.warning(
                "many labels differ; such texts are near the boundary between two classes. "
                "Without `int8` they stay the same."
            )
        return exported_student

    def _compare(self, exported: OnnxClassifier, texts: Sequence[str]) -> tuple[float, float, int]:
        """Return the largest difference of a logit, the largest logit, and how many texts get
        another label."""
        if self.model.word_score is None:
            pairs = list(zip(exported.logits(texts), self.logits(texts), strict=True))
        else:  # the last row of each is the whole text's
            pairs = list(zip(exported.word_logits(texts), self.word_logits(texts), strict=True))
        difference = max(float(np.abs(one - other).max()) for one, other in pairs)
        largest = max(float(np.abs(logits).max()) for _, logits in pairs)
        labels = [[np.atleast_2d(rows)[-1].argmax() for rows in pair] for pair in pairs]
        return difference, largest, sum(bool(one != other) for one, other in labels)

    def _is_in(self, folder: Path) -> bool:
        """Return True if `folder` holds this very student."""
        files = (STUDENT_WEIGHTS, STUDENT_TOKENIZER, "config.json")
        return all((folder / f).is_file() for f in files) and (
            read_json(folder / "config.json") == self.config
        )


def spread(texts: Sequence[str], most: int) -> list[str]:
    """Return at most `most` of `texts`, evenly spread over them."""
    count = min(len(texts), most)
    return [texts[i * len(texts) // count] for i in range(count)]
