"""Requests that wait at the same time go through a model together."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from potstill.calibration import probabilities
from potstill.inference.classifier import Classifier
from potstill.inference.explain import Explanation

logger = logging.getLogger(__name__)


class OverloadedError(Exception):
    """Too many texts wait already."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of a text.

    label: its class; probabilities: of each class; cut: whether the text is longer than the model
    reads; logits: before temperature and softmax; explanation: in their place, where asked for.
    """

    label: str
    probabilities: list[float]
    cut: bool
    logits: list[float] | None = None
    explanation: Explanation | None = None


@dataclass(frozen=True)
class _Job:
    texts: list[str]
    explain: bool
    answer: asyncio.Future[list[Prediction]]


class Batcher:
    """Runs a model in a thread of its own. What waits while it computes makes up the next batch, so
    that nothing waits for a batch to fill.

    Args:
        max_batch: Texts computed at a time; a request of more is cut into several parts.
        max_queue: Texts that may wait.
        observe: Is told the number of texts of each batch.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        max_batch: int,
        max_queue: int,
        observe: Callable[[int], object] = lambda n_texts: None,
    ):
        self.classifier = classifier
        self.max_batch, self.max_queue = max_batch, max_queue
        self.n_waiting = 0
        self._jobs: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._worker: asyncio.Task[None] | None = None
        self._observe = observe

    def start(self) -> None:
        """Begin to answer; there must be a running event loop."""
        self._worker = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Answer nothing more."""
        if self._worker:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def predict(self, texts: Sequence[str], *, explain: bool = False) -> list[Prediction]:
        """Return the prediction of each text.

        Raises:
            OverloadedError: More than `max_queue` texts would wait.
        """
        if self.n_waiting + len(texts) > self.max_queue:
            raise OverloadedError
        loop = asyncio.get_running_loop()
        jobs = [
            _Job(list(texts[start : start + self.max_batch]), explain, loop.create_future())
            for start in range(0, len(texts), self.max_batch)
        ]
        self._jobs.extend(jobs)
        self.n_waiting += len(texts)
        self._arrived.set()
        answers = await asyncio.gather(*(job.answer for job in jobs))
        return [prediction for answer in answers for prediction in answer]

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            batch = self._next_batch()
            if not batch:
                self._arrived.clear()
                continue
            self._observe(sum(len(job.texts) for job in batch))
            answers = await loop.run_in_executor(self._thread, self._answer, batch)
            for job, answer in zip(batch, answers, strict=True):
                if job.answer.done():
                    continue  # whoever asked has left, or waited too long
                if isinstance(answer, Exception):
                    job.answer.set_exception(answer)
                else:
                    job.answer.set_result(answer)

    def _next_batch(self) -> list[_Job]:
        """Take jobs of up to `max_batch` texts, leaving out those that nobody waits for."""
        batch: list[_Job] = []
        n_texts = 0
        while self._jobs and n_texts + len(self._jobs[0].texts) <= self.max_batch:
            job = self._jobs.popleft()
            self.n_waiting -= len(job.texts)
            if not job.answer.done():
                batch.append(job)
                n_texts += len(job.texts)
        return batch

    def _answer(self, batch: list[_Job]) -> list[list[Prediction] | Exception]:
        """Return the answer to each job; where they fail together, each is answered by itself."""
        try:
            return list(self._answer_together(batch))
        except Exception as error:
            if len(batch) == 1:
                return [error]
            return [answer for job in batch for answer in self._answer([job])]

    def _answer_together(self, batch: list[_Job]) -> list[list[Prediction]]:
        predictions: dict[int, list[Prediction]] = {}
        for explain in (False, True):
            numbers = [i for i, job in enumerate(batch) if job.explain is explain]
            if not numbers:
                continue
            texts = [text for i in numbers for text in batch[i].texts]
            found = iter(predict_texts(self.classifier, texts, explain=explain))
            for i in numbers:
                predictions[i] = [next(found) for _ in batch[i].texts]
        return [predictions[i] for i in range(len(batch))]


def predict_texts(
    classifier: Classifier, texts: list[str], *, explain: bool = False
) -> list[Prediction]:
    """Return the prediction of each text.

    Raises:
        UserError: A text is empty, or the model can't explain.
    """
    cut = classifier.truncated(texts).tolist()
    if explain:
        explanations = classifier.explain(texts)
        return [
            Prediction(e.label, e.probabilities.tolist(), is_cut, explanation=e)
            for e, is_cut in zip(explanations, cut, strict=True)
        ]
    logits = classifier.logits(texts)
    rows = probabilities(logits / classifier.temperature)
    labels = classifier.answers(rows).tolist()
    each = zip(labels, rows.tolist(), cut, logits.tolist(), strict=True)
    return [Prediction(*prediction) for prediction in each]
