import numpy as np
import pytest

from embedcache.errors import InputError, UnknownNameError
from embedcache.probes import REGISTRY
from embedcache.probes.knn import NearestNeighbourProbe


def literal(X: np.ndarray, y: np.ndarray, queries: np.ndarray, k: int, groups: np.ndarray | None = None) -> np.ndarray:
    """The algorithm of the paper, word by word, for complete labels: P(label) of each query, (m, n_classes)."""
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    n, n_classes, s = len(X), y.shape[1], 1.0
    own = np.arange(n) if groups is None else groups

    def nearest(x: np.ndarray, without: object = None) -> list[int]:
        similarity = unit @ (x / np.linalg.norm(x))
        return [i for i in np.argsort(-similarity, kind="stable") if without is None or own[i] != without][:k]

    result = np.empty((len(queries), n_classes))
    for label in range(n_classes):
        prior = (s + y[:, label].sum()) / (s * 2 + n)
        having, lacking = [0] * (k + 1), [0] * (k + 1)
        for i in range(n):
            delta = int(y[nearest(X[i], own[i]), label].sum())
            if y[i, label] == 1:
                having[delta] += 1
            else:
                lacking[delta] += 1
        for q, x in enumerate(queries):
            c = int(y[nearest(x), label].sum())
            like = (s + having[c]) / (s * (k + 1) + sum(having))
            unlike = (s + lacking[c]) / (s * (k + 1) + sum(lacking))
            result[q, label] = prior * like / (prior * like + (1 - prior) * unlike)
    return result


def data(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    y = (random.random((n, 2)) < 0.4).astype(float)
    X = random.normal(size=(n, 6)).astype(np.float32)
    X[:, :2] += y
    return X, y, random.normal(size=(15, 6)).astype(np.float32)


@pytest.mark.parametrize("grouped", [False, True])
def test_all_k_are_the_papers_own(grouped: bool) -> None:
    X, y, queries = data()
    groups = np.arange(60) // 4 if grouped else None
    fitted = NearestNeighbourProbe(votes="ml-knn").fit_path(X, y, "multilabel", (20.0, 5.0, 1.0), 2, groups)
    scores = fitted.scores(queries)
    for i, k in enumerate((20, 5, 1)):
        np.testing.assert_allclose(scores[i], literal(X, y, queries, k, groups), rtol=1e-9)
    np.testing.assert_array_equal(fitted.only(5.0).scores(queries)[0], scores[1])
    assert (fitted.score_name, fitted.threshold) == ("probability", 0.5)


def test_binary_is_one_label() -> None:
    X, y, queries = data()
    probe = NearestNeighbourProbe(votes="ml-knn")
    one = probe.fit_path(X, y[:, 0], "binary", (5.0,), 1).scores(queries)
    both = probe.fit_path(X, y, "multilabel", (5.0,), 2).scores(queries)
    np.testing.assert_array_equal(one[..., 0], both[..., 0])


def test_rows_without_a_label_leave_its_tables_and_neighbours_scale() -> None:
    """Half of the rows know nothing of the second label: of their neighbours those that do are counted as if all did."""
    X, y, queries = data(n=400)
    X[:, 1] += 2 * y[:, 1].astype(np.float32)
    queries[:, 1] += 3 * (np.arange(15) % 2)
    probe = NearestNeighbourProbe(votes="ml-knn")
    whole = probe.fit_path(X, y, "multilabel", (40.0,), 2).scores(queries)
    holed = y.copy()
    holed[np.random.default_rng(1).random(400) < 0.5, 1] = np.nan
    scores = probe.fit_path(X, holed, "multilabel", (40.0,), 2).scores(queries)
    np.testing.assert_array_equal(scores[..., 0], whole[..., 0])
    assert np.corrcoef(scores[0, :, 1], whole[0, :, 1])[0, 1] > 0.6
    assert ((scores > 0) & (scores < 1)).all()


def test_a_query_without_a_known_neighbour_gets_the_prior() -> None:
    X = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [0.05, 1]], dtype=np.float32)
    y = np.array([[np.nan, 1], [np.nan, 0], [1, 0], [0, 1], [0, 0]])
    scores = NearestNeighbourProbe(votes="ml-knn").fit_path(X, y, "multilabel", (2.0,), 2).scores(X[:1])
    assert scores[0, 0, 0] == pytest.approx((1 + 1) / (2 + 3))


def test_a_label_with_one_class_gets_no_score() -> None:
    X, y, queries = data()
    y[:, 1] = 0
    scores = NearestNeighbourProbe(votes="ml-knn").fit_path(X, y, "multilabel", (5.0,), 2).scores(queries)
    assert np.isnan(scores[..., 1]).all()
    assert np.isfinite(scores[..., 0]).all()


def test_what_it_does_not_answer_is_said() -> None:
    assert "multiclass" not in REGISTRY.load("knn")(votes="ml-knn").answers
    with pytest.raises(UnknownNameError, match="ml-knn"):
        NearestNeighbourProbe(votes="mlknn")
    X, y, _ = data()
    fitted = NearestNeighbourProbe(votes="ml-knn").fit_path(X, y, "multilabel", (5.0,), 2)
    with pytest.raises(InputError, match="choose k by validation"):
        fitted.left_out_scores("row")
