"""The linear SVM, prototypes and any estimator as a probe, against scikit-learn itself."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.svm import SVC, LinearSVC

from embedcache.errors import InputError
from embedcache.probes import REGISTRY
from embedcache.probes.linear_svm import LinearSVMProbe
from embedcache.probes.prototypes import PrototypeProbe
from embedcache.probes.sklearn_probe import estimator_probe
from embedcache.testing import check_probe
from embedcache.testing.probe_contract import breaches_of

N, D = 90, 7


@pytest.fixture
def X() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, D)).astype(np.float32) + 2


@pytest.fixture
def y(X: np.ndarray) -> np.ndarray:
    labels = (X[:, :3] + np.random.default_rng(1).normal(size=(N, 3)) > 2).astype(float)
    labels[::7, 1] = np.nan
    return labels


def test_a_linear_svm_is_scikit_learns_by_label_and_by_class(X: np.ndarray, y: np.ndarray) -> None:
    path = LinearSVMProbe().fit_path(X, y, "multilabel", (0.01, 1.0), 3)
    for i, C in enumerate((0.01, 1.0)):
        for j in range(3):
            known = ~np.isnan(y[:, j])
            theirs = LinearSVC(C=C, dual=False).fit(X[known], y[known, j]).decision_function(X)
            np.testing.assert_allclose(path.scores(X)[i, :, j], theirs, rtol=1e-6)
    assert (path.score_name, path.threshold) == ("decision", 0.0)
    classes = np.arange(N) % 4
    several = LinearSVMProbe().fit_path(X, classes.astype(float), "multiclass", (0.1,), 5).scores(X)[0]
    np.testing.assert_allclose(
        several[:, :4], LinearSVC(C=0.1, dual=False).fit(X, classes).decision_function(X), rtol=1e-6
    )
    assert np.isnan(several[:, 4]).all()
    assert LinearSVMProbe().grid(10) == tuple(sorted(LinearSVMProbe().grid(10)))


def test_a_solver_that_stops_early_is_said() -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(200, 30)) * 10 ** random.uniform(-3, 3, 30)
    y = (random.random(200) < 0.5).astype(float)
    path = LinearSVMProbe(max_iter=1, tol=1e-12).fit_path(X, y, "binary", (1.0,), 1)
    assert path.diagnostics.not_converged == (1.0,)
    assert "1 values of C did not converge." in path.diagnostics.warnings


def test_prototypes_are_the_nearest_centroids_of_scikit_learn(X: np.ndarray) -> None:
    classes = np.arange(N) % 3
    X[:, :3] += 1.5 * np.eye(3, dtype=np.float32)[classes]
    for shrink in (0.0, 1.0, 3.0):
        ours = PrototypeProbe(shrink=(shrink,), metric="euclidean").fit_path(
            X, classes.astype(float), "multiclass", (shrink,), 3
        )
        theirs = NearestCentroid(shrink_threshold=shrink or None).fit(X.astype(float), classes)
        if shrink == 0:
            np.testing.assert_allclose(ours.means[0][0] + ours.centres[0], theirs.centroids_, atol=1e-6)
            assert (ours.scores(X)[0].argmax(axis=1) == theirs.predict(X)).all()
        apart = ours.scores(X)[0]
        squared = ((X[:, None, :] - (ours.means[0][0] + ours.centres[0])) ** 2).sum(axis=2)
        np.testing.assert_allclose(apart - apart[:, :1], squared[:, :1] - squared, atol=1e-4)


def test_shrinking_is_a_soft_threshold_in_standard_errors(X: np.ndarray) -> None:
    y = (np.arange(N) % 3 == 0).astype(float)
    plain, shrunk, gone = (PrototypeProbe().fit_path(X, y, "binary", (s,), 1).means[0][0] for s in (0.0, 1.0, 1e9))
    within = np.sqrt(sum(((X[y == k] - X[y == k].mean(axis=0)) ** 2).sum(axis=0) for k in (0, 1)) / (N - 2))
    error = np.sqrt(1 / np.array([(y == 0).sum(), (y == 1).sum()]) - 1 / N)[:, None] * within
    np.testing.assert_allclose(shrunk, np.sign(plain) * np.maximum(np.abs(plain) - error, 0), rtol=1e-4, atol=1e-6)
    assert not gone.any()
    assert PrototypeProbe(shrink=(0.0, 2.0, 1.0)).grid(5) == (2.0, 1.0, 0.0)


def test_a_labels_prototypes_are_with_and_without_it(X: np.ndarray, y: np.ndarray) -> None:
    path = PrototypeProbe().fit_path(X, y, "multilabel", (0.0,), 3)
    known = ~np.isnan(y[:, 1])
    centre = X[known].mean(axis=0, dtype=float)
    yes, no = (X[known][y[known, 1] == v].mean(axis=0, dtype=float) - centre for v in (1, 0))
    rows = X - centre
    cosine = [rows @ m / np.linalg.norm(rows, axis=1) / np.linalg.norm(m) for m in (yes, no)]
    np.testing.assert_allclose(path.scores(X)[0, :, 1], cosine[0] - cosine[1], atol=1e-6)
    for options in ({"shrink": ()}, {"shrink": (-1.0,)}, {"metric": "manhattan"}):
        with pytest.raises(InputError, match="must be"):
            PrototypeProbe(**options)


def test_an_estimator_with_probabilities_has_a_threshold_of_one_half(X: np.ndarray, y: np.ndarray) -> None:
    Forest = estimator_probe(RandomForestClassifier, parameter="max_depth", grid=(1, 3), n_estimators=5)
    path = Forest().fit_path(X, y, "multilabel", (1, 3), 3)
    assert (path.score_name, path.threshold) == ("probability", 0.5)
    known = ~np.isnan(y[:, 1])
    theirs = RandomForestClassifier(5, max_depth=3, random_state=0).fit(X[known], y[known, 1])
    np.testing.assert_array_equal(path.only(3).scores(X)[0, :, 1], theirs.predict_proba(X)[:, 1])
    assert path.values == (1, 3)
    changed = Forest(n_estimators=2, max_depth=(2,))
    assert len(changed.fit_path(X, y[:, 0], "binary", (2,), 1).estimators[0][0].estimators_) == 2
    assert asdict(changed)["random_state"] == 0


def test_a_regressor_and_a_pipeline_are_probes_too(X: np.ndarray) -> None:
    target = X[:, 0] * 3 + 1
    target[:4] = np.nan
    Number = estimator_probe(Lasso, parameter="alpha", grid=(0.01, 0.1), smoothest="largest")
    assert (Number().answers, Number().grid(9)) == (("numeric",), (0.1, 0.01))
    found = Number().fit_path(X, target, "numeric", (0.1,), 1).scores(X)[0, :, 0]
    np.testing.assert_allclose(found, Lasso(alpha=0.1).fit(X[4:], target[4:]).predict(X), rtol=1e-5)

    def piped() -> Any:
        return make_pipeline(Normalizer(), LogisticRegression())

    Piped = estimator_probe(piped, parameter="logisticregression__C", grid=(0.1, 1.0))
    y = (np.arange(N) % 2).astype(float)
    scores = Piped().fit_path(X, y, "binary", (1.0,), 1).scores(X)[0, :, 0]
    np.testing.assert_allclose(
        scores, make_pipeline(Normalizer(), LogisticRegression()).fit(X, y).decision_function(X), rtol=1e-5
    )


def test_two_of_several_classes_are_scored_by_one_decision(X: np.ndarray) -> None:
    y = np.where(np.arange(N) % 2, 2.0, 0.0)
    scores = estimator_probe(SVC, parameter="C", grid=(1.0,))().fit_path(X, y, "multiclass", (1.0,), 3).scores(X)[0]
    np.testing.assert_array_equal(scores[:, 2], -scores[:, 0])
    assert np.isnan(scores[:, 1]).all()


def test_decisions_of_pairs_of_classes_are_refused_where_classes_are_scored(X: np.ndarray) -> None:
    """Of three classes there are three pairs, so that their columns would pass for those of the classes."""
    y = (np.arange(N) % 3).astype(float)
    Pairs = estimator_probe(SVC, parameter="C", grid=(1.0,), decision_function_shape="ovo")
    with pytest.raises(InputError, match="SVC with decision_function_shape = 'ovo' scores pairs of classes"):
        Pairs().fit_path(X, y, "multiclass", (1.0,), 3)

    def piped() -> Any:
        return make_pipeline(Normalizer(), SVC(decision_function_shape="ovo"))

    with pytest.raises(InputError, match="piped with svc__decision_function_shape = 'ovo'"):
        estimator_probe(piped, parameter="svc__C", grid=(1.0,))().fit_path(X, y, "multiclass", (1.0,), 3)
    # a label by itself has no pairs
    alone = Pairs().fit_path(X, (y == 1).astype(float), "binary", (1.0,), 1).scores(X)
    np.testing.assert_array_equal(alone[0, :, 0], SVC().fit(X, y == 1).decision_function(X))
    by_class = Pairs(decision_function_shape="ovr").fit_path(X, y, "multiclass", (1.0,), 3).scores(X)
    np.testing.assert_array_equal(by_class[0], SVC().fit(X, y).decision_function(X))


def install_probe(folder: Path) -> None:
    """A package with one probe, found where `folder` is on the path."""
    (folder / "their_probe.py").write_text(
        "from sklearn.linear_model import LogisticRegression\n"
        "from embedcache.probes.sklearn_probe import estimator_probe\n"
        "Probe = estimator_probe(LogisticRegression, parameter='C', grid=(0.01, 0.1, 1.0), max_iter=500)\n"
    )
    about = folder / "their_probe-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-probe\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[embedcache.probes]\ntheir-logistic = their_probe:Probe\n")


def test_what_can_be_no_probe_is_refused(X: np.ndarray) -> None:
    with pytest.raises(InputError, match="LinearSVC has no option 'c'"):
        estimator_probe(LinearSVC, parameter="c", grid=(1.0,))
    with pytest.raises(InputError, match="neither a classifier nor a regressor"):
        estimator_probe(Normalizer, parameter="copy", grid=(1.0,))
    with pytest.raises(InputError, match="smoothest must be"):
        estimator_probe(LinearSVC, parameter="C", grid=(1.0,), smoothest="both")
    y = (X[:, 0] > 2).astype(float)
    neighbours = estimator_probe(KNeighborsClassifier, parameter="n_neighbors", grid=(999, 5), smoothest="largest")()
    with pytest.raises(InputError, match="KNeighborsClassifier can not be fitted"):
        neighbours.fit_path(X, y, "binary", (0,), 1)
    with pytest.raises(InputError, match="KNeighborsClassifier can not score: Expected n_neighbors"):
        neighbours.fit_path(X, y, "binary", (999,), 1).scores(X)
    with pytest.raises(InputError, match="not finite"):
        LinearSVMProbe().fit_path(np.full((4, 2), np.nan), np.array([0, 1, 0, 1.0]), "binary", (1.0,), 1)


def test_a_regressors_probe_holds_to_the_contract() -> None:
    probe = estimator_probe(Lasso, parameter="alpha", grid=(0.1, 0.01), smoothest="largest")()
    assert list(breaches_of(probe)) == []


def test_a_probe_of_another_package_holds_to_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file and an entry point, as `pip` would install them."""
    install_probe(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    assert "their-logistic" in REGISTRY.names()
    check_probe("their-logistic")


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_two_classes_of_a_softmax_task_have_a_score_each(metric: Any) -> None:
    random = np.random.default_rng(0)
    y = np.arange(80) % 2.0
    X = (random.normal(size=(80, 4)) + 3 * y[:, None] * np.eye(4)[0]).astype(np.float32)
    scores = PrototypeProbe(metric=metric).fit_path(X, y, "multiclass", (0.0,), 2).scores(X)[0]
    assert scores.shape == (80, 2)
    assert (scores.argmax(axis=1) == y).mean() > 0.9
