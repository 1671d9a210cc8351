"""`LogisticPath` is an estimator as scikit-learn wants one."""

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from embedcache.probes.estimators import LogisticPath


@parametrize_with_checks([LogisticPath(), LogisticPath(C=None, Cs=(0.1, 1.0), cv=2)])
def test_scikit_learns_own_checks(estimator: LogisticPath, check: Any) -> None:
    """All of them: none is expected to fail."""
    check(estimator)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    return X.astype(np.float32) / 16, y


def test_named_classes_and_weights_are_scikit_learns() -> None:
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    weight = {"setosa": 1.0, "versicolor": 2.0, "virginica": 0.5}
    ours = LogisticPath(C=0.3, class_weight=weight, tol=1e-11).fit(X, names)
    theirs = LogisticRegression(C=0.3, class_weight=weight, tol=1e-9, max_iter=5000).fit(X, names)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-4)
    assert (ours.predict(X) == theirs.predict(X)).all()


def test_digits_at_the_chosen_c_are_told_apart_as_scikit_learn_does(digits: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = digits
    fit, held, test = (np.arange(len(X)) % 3 == k for k in range(3))
    ours = LogisticPath(C=None).fit(X[fit], y[fit], validation=(X[held], y[held]))
    assert ours.Cs_.shape == ours.path_loss_.shape == ours.n_iter_.shape == (45,)
    assert ours.Cs_[ours.path_loss_.argmin()] == ours.C_
    assert ours.Cs_[0] < ours.C_ < ours.Cs_[-1]
    np.testing.assert_array_equal(ours.coef_, ours.path_coef_[ours.path_loss_.argmin()])
    theirs = LogisticRegression(C=ours.C_, tol=1e-8, max_iter=10_000).fit(X[fit].astype(np.float64), y[fit])
    assert (ours.predict(X[test]) == theirs.predict(X[test].astype(np.float64))).all()


def test_c_is_chosen_by_folds_of_whole_groups() -> None:
    """Rows of a group are copies: folds that split groups are fooled into a large C."""
    random = np.random.default_rng(0)
    X, groups = np.repeat(random.normal(size=(40, 30)), 5, axis=0), np.repeat(np.arange(40), 5)
    y = np.repeat(random.integers(0, 2, 40), 5)
    order = random.permutation(200)
    X, groups, y = X[order], groups[order], y[order]
    fooled = LogisticPath(C=None).fit(X, y)
    honest = LogisticPath(C=None).fit(X, y, groups=groups)
    assert honest.C_ < fooled.C_
    by_splitter = LogisticPath(C=None, cv=GroupKFold(5)).fit(X, y, groups=groups)
    assert by_splitter.C_ < fooled.C_


def test_several_labels_with_missing_ones_are_fitted_each_on_its_rows() -> None:
    random = np.random.default_rng(1)
    X = random.normal(size=(200, 6))
    Y = (X[:, :3] + random.normal(size=(200, 3)) > 0).astype(float)
    Y[random.random(Y.shape) < 0.3] = np.nan
    Y[:, 2] = np.where(np.isnan(Y[:, 2]), np.nan, 1)
    model = LogisticPath(C=0.5, tol=1e-11).fit(X, Y)
    assert model.classes_.tolist() == [0, 1, 2]
    share = model.predict_proba(X)
    assert np.isnan(share[:, 2]).all()
    for j in range(2):
        known = ~np.isnan(Y[:, j])
        theirs = LogisticRegression(C=0.5, tol=1e-10).fit(X[known], Y[known, j])
        np.testing.assert_allclose(share[:, j], theirs.predict_proba(X)[:, 1], atol=1e-5)
    assert set(np.unique(model.predict(X))) <= {0, 1}
    chosen = LogisticPath(C=None, Cs=(1e-4, 1e-1)).fit(X, Y)
    assert chosen.C_ == 1e-1


def test_it_works_in_a_pipeline_and_tells_what_did_not_converge(digits: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = digits
    scores = cross_val_score(make_pipeline(StandardScaler(), LogisticPath(C=0.1)), X[:600], y[:600], cv=3)
    assert scores.min() > 0.8
    with pytest.warns(ConvergenceWarning, match="did not converge"):
        LogisticPath(C=1e4, max_iter=1).fit(X, y)


def test_what_can_not_be_fitted_is_refused_in_one_line() -> None:
    X, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
    for options, match in (({"C": 0.0}, "positive"), ({"C": None, "Cs": (-1.0,)}, "positive")):
        with pytest.raises(ValueError, match=match):
            LogisticPath(**options).fit(X, y)
    with pytest.raises(ValueError, match="NaN for a missing label"):
        LogisticPath().fit(X, np.stack([y, 2 * y], axis=1))
    with pytest.raises(ValueError, match="no C could be chosen"):
        LogisticPath(C=None).fit(X, y, validation=(X, y + 5))
