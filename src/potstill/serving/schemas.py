"""The bodies of requests and answers."""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, model_validator

from potstill.inference.explain import by_label, explanation_json
from potstill.serving.batching import Prediction

TEXT = "The books on the table is old."
ModelName = Annotated[
    str, Field(description="student, or teacher where one is loaded", examples=["student"])
]


class TextRequest(BaseModel):
    """One text or several."""

    kinds: ClassVar[tuple[str, ...]] = ("text", "texts")

    text: str | None = Field(None, description="one text", examples=[TEXT])
    texts: list[str] | None = Field(None, description="several texts")
    model: ModelName = "student"

    @model_validator(mode="after")
    def _one_kind(self) -> "TextRequest":
        if sum(value is not None for value in self._given()) != 1:
            raise ValueError(f"give one of {', '.join(self.kinds)}")
        return self

    def _given(self) -> list[Any]:
        return [getattr(self, kind) for kind in self.kinds]

    def all_texts(self) -> list[str]:
        """Return the texts of the request."""
        return self.texts if self.texts is not None else [self.text or ""]

    @property
    def single(self) -> bool:
        """Whether the answer is that to one text, not a list."""
        return self.text is not None


class PredictRequest(TextRequest):
    """One text, several, or `inputs` as text-embeddings-inference takes them: a string, or a list
    of lists with one string each."""

    kinds = ("text", "texts", "inputs")

    inputs: str | list[str] | list[list[str]] | None = Field(
        None, description="as in text-embeddings-inference: a string, or [[string], [string], …]"
    )
    raw_scores: bool = Field(False, description="with `inputs`: logits instead of probabilities")
    truncate: bool = Field(
        True, description="with `inputs`: has no effect, as long texts are always cut"
    )

    @model_validator(mode="after")
    def _no_pairs(self) -> "PredictRequest":
        given = self.inputs if isinstance(self.inputs, list) else []
        groups = given if given and isinstance(given[0], list) else [given] if given else []
        if self.inputs == [] or any(len(group) != 1 for group in groups):
            raise ValueError(
                "inputs takes a string or [[string], [string], …]; this model reads single texts, "
                "no pairs"
            )
        return self

    def all_texts(self) -> list[str]:
        if self.inputs is None:
            return super().all_texts()
        if isinstance(self.inputs, str):
            return [self.inputs]
        return [text if isinstance(text, str) else text[0] for text in self.inputs]

    @property
    def single(self) -> bool:
        return (
            self.text is not None
            or isinstance(self.inputs, str)
            or (self.inputs is not None and isinstance(self.inputs[0], str))
        )


class LabelScore(BaseModel):
    """A class and its score, as text-embeddings-inference gives them."""

    label: str
    score: float


class Answer(BaseModel):
    """What the model says of a text."""

    label: str
    probabilities: dict[str, float]
    cut: bool | None = Field(None, description="true where the model does not read the whole text")


class Word(BaseModel):
    """A word, and what the classes would be if the text ended after it."""

    word: str
    start: int
    end: int
    probabilities: dict[str, float]


class ExplainedAnswer(Answer):
    """What the model says of a text, and after each of its words."""

    words: list[Word]
    decisive: int | None = Field(
        description="index of the word from which on the label is held; null without words"
    )


class ErrorAnswer(BaseModel):
    """What was wrong, and what to do."""

    error: str
    error_type: str


def to_answer(prediction: Prediction, labels: tuple[str, ...]) -> dict[str, Any]:
    """Return an `Answer` or an `ExplainedAnswer` as JSON."""
    answer: dict[str, Any] = {
        "label": prediction.label,
        "probabilities": by_label(labels, prediction.probabilities),
    }
    if prediction.cut:
        answer["cut"] = True
    if prediction.explanation is not None:
        answer |= explanation_json(prediction.explanation)
    return answer


def to_label_scores(
    prediction: Prediction, labels: tuple[str, ...], raw_scores: bool
) -> list[dict[str, Any]]:
    """Return every class with its score, the most probable first."""
    scores = prediction.logits if raw_scores and prediction.logits else prediction.probabilities
    pairs = sorted(zip(labels, scores, strict=True), key=lambda pair: -pair[1])
    return [{"label": label, "score": score} for label, score in pairs]
