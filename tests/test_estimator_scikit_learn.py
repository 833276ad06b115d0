"""DistilRNNClassifier with scikit-learn's own tools and checks."""

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

from potstill import (
    DistilRNNClassifier,
)
from tests.toy_texts import LABELS, QUICK, SMALL, TEXTS


@pytest.fixture(scope="module")
def fitted() -> DistilRNNClassifier:
    return DistilRNNClassifier(**SMALL).fit(TEXTS, LABELS)


class TestScikitLearn:
    """With the library's own tools and checks."""

    def test_it_is_cloned_and_pickled(self, fitted: DistilRNNClassifier) -> None:
        copy = clone(fitted.set_params(seed=5))
        fitted.set_params(seed=0)
        assert copy.get_params() == fitted.get_params() | {"seed": 5}
        assert not hasattr(copy, "classes_")
        pickled = pickle.loads(pickle.dumps(fitted))
        expected = fitted.predict_proba(TEXTS)
        np.testing.assert_array_equal(pickled.predict_proba(TEXTS), expected)

    def test_it_works_in_a_pipeline_under_cross_validation(self) -> None:
        pipeline = make_pipeline(
            FunctionTransformer(lambda texts: [text.lower() for text in texts]),
            DistilRNNClassifier(**QUICK),
        )
        scores = cross_val_score(pipeline, TEXTS, LABELS, cv=2, error_score="raise")
        assert scores.shape == (2,)
        assert ((scores >= 0) & (scores <= 1)).all()

    def test_its_parameters_are_searched(self) -> None:
        search = GridSearchCV(
            DistilRNNClassifier(**QUICK),
            {"hidden_size": [4, 8], "cell": ["gru", "rnn"]},
            cv=2,
            error_score="raise",
        ).fit(np.array(TEXTS), LABELS)
        assert search.best_estimator_.student_.model.config.hidden_size in (4, 8)
        assert len(search.cv_results_["params"]) == 4

    def test_it_is_a_classifier_of_texts(self) -> None:
        assert is_classifier(DistilRNNClassifier())
        tags, theirs = (e.__sklearn_tags__() for e in (DistilRNNClassifier(), TfidfVectorizer()))
        assert tags.input_tags == theirs.input_tags

    def test_check_estimator_has_nothing_to_say(self) -> None:
        """scikit-learn's own checks need numbers, so that it skips all of them for texts."""
        with pytest.warns(SkipTestWarning, match="Can't test estimator DistilRNNClassifier"):
            estimator_checks.check_estimator(DistilRNNClassifier())

    # Those of scikit-learn's checks that need no table of numbers.
    @pytest.mark.parametrize(
        "check",
        [
            estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
            estimator_checks.check_estimator_cloneable,
            estimator_checks.check_estimator_repr,
            estimator_checks.check_estimator_tags_renamed,
            estimator_checks.check_get_params_invariance,
            estimator_checks.check_mixin_order,
            estimator_checks.check_no_attributes_set_in_init,
            estimator_checks.check_parameters_default_constructible,
            estimator_checks.check_set_params,
            estimator_checks.check_valid_tag_types,
        ],
        ids=lambda check: check.__name__,
    )
    def test_their_checks(self, check: Any) -> None:
        check("DistilRNNClassifier", DistilRNNClassifier(**SMALL))

    # And those that do, with texts in place of the numbers.
    def test_unfitted_it_says_so(self) -> None:
        for method in ("predict", "predict_proba", "score"):
            arguments = (TEXTS, LABELS) if method == "score" else (TEXTS,)
            with pytest.raises(NotFittedError):
                getattr(DistilRNNClassifier(), method)(*arguments)

    def test_fit_returns_self_and_changes_no_parameter(self) -> None:
        classifier = DistilRNNClassifier(**QUICK)
        before = classifier.get_params()
        assert classifier.fit(TEXTS, LABELS) is classifier
        assert classifier.get_params() == before
        fitted = {name for name in vars(classifier) if name not in before}
        assert fitted == {"classes_", "student_"}

    def test_predictions_do_not_depend_on_order_or_batch(self, fitted: DistilRNNClassifier) -> None:
        expected = fitted.predict_proba(TEXTS)
        order = np.random.default_rng(0).permutation(len(TEXTS))
        shuffled = fitted.predict_proba([TEXTS[i] for i in order])
        np.testing.assert_allclose(shuffled, expected[order], rtol=1e-5)
        alone = np.concatenate([fitted.predict_proba([text]) for text in TEXTS])
        np.testing.assert_allclose(alone, expected, rtol=1e-5)

    def test_predict_changes_nothing(self, fitted: DistilRNNClassifier) -> None:
        before = dict(vars(fitted))
        fitted.predict(TEXTS)
        assert vars(fitted) == before
