import numpy as np
import pytest

from embedcache.errors import InputError
from embedcache.probes.base import ProbeKind
from embedcache.probes.knn import NearestNeighbourProbe
from embedcache.probes.neighbours import Search

ROUNDING = 1e-4
"""Similarities are float32: 6e-8, times up to sqrt(d), divided by the temperature .07."""
EITHER = pytest.mark.parametrize("search", ["numpy", "faiss"])


@pytest.fixture(autouse=True)
def _faiss(request: pytest.FixtureRequest) -> None:
    if "search" in request.fixturenames and request.getfixturevalue("search") == "faiss":
        pytest.importorskip("faiss")


def data(n: int = 80, d: int = 12, labels: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.normal(size=(n, d)).astype(np.float32), (random.random((n, labels)) < 0.4).astype(float)


def brute(X: np.ndarray, labels: np.ndarray, query: np.ndarray, k: int, without: int | None = None) -> np.ndarray:
    """One query, in float64, word by word."""
    unit = X.astype(np.float64) / np.linalg.norm(X.astype(np.float64), axis=1, keepdims=True)
    similarity = unit @ (query.astype(np.float64) / np.linalg.norm(query.astype(np.float64)))
    order = [i for i in np.argsort(-similarity) if i != without][:k]
    weight = np.exp(similarity[order] / 0.07)
    weight /= weight.sum()
    shares = []
    for j in range(labels.shape[1]):
        known = ~np.isnan(labels[order, j])
        all_known = labels[~np.isnan(labels[:, j]), j]
        votes = weight[known]
        shares.append((votes * labels[order, j][known]).sum() / votes.sum() if known.any() else all_known.mean())
    return np.array(shares)


@EITHER
def test_all_k_are_the_brute_force_votes(search: Search) -> None:
    X, y = data()
    new = data(seed=1)[0][:20]
    fitted = NearestNeighbourProbe(search=search).fit_path(X, y, "multilabel", (50.0, 5.0, 1.0), 3)
    scores = fitted.scores(new)
    for i, k in enumerate((50, 5, 1)):
        expected = [brute(X, y, q, k) for q in new]
        np.testing.assert_allclose(scores[i], expected, atol=ROUNDING)


@EITHER
def test_the_nearest_row_of_a_training_row_is_itself_unless_it_is_left_out(search: Search) -> None:
    X, y = data()
    fitted = NearestNeighbourProbe(search=search).fit_path(X, y, "multilabel", (1.0, 7.0), 3)
    np.testing.assert_allclose(fitted.scores(X)[0], y)
    own = fitted.left_out_scores("row")
    for i, k in enumerate((1, 7)):
        np.testing.assert_allclose(own[i], [brute(X, y, q, k, without=j) for j, q in enumerate(X)], atol=ROUNDING)


def test_missing_labels_do_not_vote() -> None:
    X, y = data()
    y[np.random.default_rng(2).random(y.shape) < 0.5] = np.nan
    new = data(seed=1)[0]
    scores = NearestNeighbourProbe().fit_path(X, y, "multilabel", (2.0, 10.0), 3).scores(new)
    some = ~np.isnan(y).all(axis=1)  # a row without any label is no training row
    for i, k in enumerate((2, 10)):
        np.testing.assert_allclose(scores[i], [brute(X[some], y[some], q, k) for q in new], atol=ROUNDING)
    assert np.isfinite(scores).all()


@EITHER
def test_length_of_a_feature_vector_does_not_count(search: Search) -> None:
    X, y = data()
    new = data(seed=1)[0]
    scale = np.random.default_rng(0).uniform(0.1, 10, (80, 1)).astype(np.float32)
    probe = NearestNeighbourProbe(search=search)
    plain = probe.fit_path(X, y, "multilabel", (10.0,), 3).scores(new)
    scaled = probe.fit_path(X * scale, y, "multilabel", (10.0,), 3).scores(new * scale)
    np.testing.assert_allclose(scaled, plain, atol=ROUNDING)


@pytest.mark.parametrize(("kind", "classes"), [("binary", 1), ("multiclass", 4)])
def test_votes_of_each_kind(kind: ProbeKind, classes: int) -> None:
    X, _ = data()
    y = np.random.default_rng(0).integers(0, max(2, classes), 80).astype(float)
    scores = NearestNeighbourProbe().fit_path(X, y, kind, (80.0,), classes).scores(X)[0]
    matrix = y[:, None] if kind == "binary" else np.eye(4)[y.astype(int)]
    np.testing.assert_allclose(scores, [brute(X, matrix, q, 80) for q in X], atol=ROUNDING)
    if kind == "multiclass":
        np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-9)


def test_a_label_with_one_class_gets_no_score() -> None:
    X, y = data()
    y[:, 1] = 1
    scores = NearestNeighbourProbe().fit_path(X, y, "multilabel", (5.0,), 3).scores(X)
    assert np.isnan(scores[..., 1]).all()
    assert np.isfinite(scores[..., [0, 2]]).all()


def test_k_is_clipped_and_descends() -> None:
    assert NearestNeighbourProbe().grid(60) == (60.0, 50.0, 20.0, 10.0, 5.0)
    assert NearestNeighbourProbe().grid(3) == (3.0,)


def test_fewer_rows_than_k_all_vote() -> None:
    X, y = data(n=4)
    probe = NearestNeighbourProbe()
    many, four = (probe.fit_path(X, y, "multilabel", (k,), 3).scores(X) for k in (200.0, 4.0))
    np.testing.assert_array_equal(many, four)


def test_more_queries_than_a_block() -> None:
    X, y = data()
    new = np.tile(X, (30, 1))
    scores = NearestNeighbourProbe(search="numpy").fit_path(X, y, "multilabel", (5.0,), 3).scores(new)
    np.testing.assert_allclose(scores[0], np.tile(scores[0, :80], (30, 1)), atol=ROUNDING)


def test_the_search_that_was_used_is_named() -> None:
    X, y = data()
    named = NearestNeighbourProbe(search="numpy").fit_path(X, y, "multilabel", (5.0,), 3).diagnostics.software["search"]
    assert named.startswith("numpy")


def test_no_row_is_one_clear_line() -> None:
    with pytest.raises(InputError, match="no training row"):
        NearestNeighbourProbe().fit_path(np.empty((0, 3), np.float32), np.empty((0, 1)), "multilabel", (1.0,), 1)
    one = NearestNeighbourProbe().fit_path(np.ones((1, 3), np.float32), np.ones((1, 1)), "multilabel", (1.0,), 1)
    with pytest.raises(InputError, match="at least one other"):
        one.left_out_scores("row")


# --- leaving rows out -----------------------------------------------------------------------------


def patients(n: int = 80, largest: int = 25) -> np.ndarray:
    """Patients of many sizes, one of them with a third of all rows, in no order."""
    groups = np.concatenate([np.zeros(largest, dtype=int), 1 + np.arange(n - largest) // 3])
    return np.array([f"p{g}" for g in np.random.default_rng(5).permutation(groups)])


@EITHER
@pytest.mark.parametrize("by", ["row", "patient"])
def test_scores_without_a_row_or_its_patient_are_those_of_a_fit_without_them(search: Search, by: str) -> None:
    X, y = data()
    y[np.random.default_rng(2).random(y.shape) < 0.2] = np.nan
    y[3] = np.nan  # a row without any label is scored, and is no neighbour
    groups = patients()
    values = (60.0, 7.0, 1.0)
    probe = NearestNeighbourProbe(search=search)
    found = probe.fit_path(X, y, "multilabel", values, 3, groups).left_out_scores(by)
    assert found.shape == (3, 80, 3)
    for i in range(80):
        others = np.arange(80) != i if by == "row" else groups != groups[i]
        expected = probe.fit_path(X[others], y[others], "multilabel", values, 3).scores(X[i : i + 1])
        np.testing.assert_allclose(found[:, i], expected[:, 0], atol=ROUNDING)


def test_without_groups_each_row_is_its_own_patient() -> None:
    X, y = data()
    fitted = NearestNeighbourProbe().fit_path(X, y, "multilabel", (5.0,), 3)
    np.testing.assert_array_equal(fitted.left_out_scores("patient"), fitted.left_out_scores("row"))


def test_one_patient_alone_can_not_be_left_out() -> None:
    X, y = data()
    fitted = NearestNeighbourProbe().fit_path(X, y, "multilabel", (5.0,), 3, np.zeros(80))
    with pytest.raises(InputError, match="of another patient"):
        fitted.left_out_scores("patient")
    assert np.isfinite(fitted.left_out_scores("row")).all()


def test_rows_without_a_label_are_no_neighbours() -> None:
    X, y = data(labels=1)
    y[::4] = np.nan
    known = ~np.isnan(y[:, 0])
    values = (9.0,)
    with_them = NearestNeighbourProbe().fit_path(X, y[:, 0], "binary", values, 1).scores(X)
    without = NearestNeighbourProbe().fit_path(X[known], y[known, 0], "binary", values, 1).scores(X)
    np.testing.assert_array_equal(with_them, without)


def test_a_k_above_the_rows_is_told_where_it_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 4)).astype(np.float32), np.arange(30) % 2

    def told(n: int, **asked: object) -> tuple[str, ...]:
        probe = NearestNeighbourProbe(**asked)
        return probe.fit_path(X[:n], y[:n, None].astype(float), "binary", probe.grid(n), 1).diagnostics.warnings

    assert told(30, k=(5000,)) == ("k = 5000 is above the 30 rows to search, and taken as k = 30.",)
    assert told(20, k=(5, 25, 30)) == ("k = 25, 30 are above the 20 rows to search, and taken as k = 20.",)
    assert told(30, k=(5, 30)) == told(30) == ()
