"""`LogisticPath`: the logistic path as a scikit-learn estimator. Only this file of the room imports scikit-learn."""

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedGroupKFold, check_cv
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_array, check_is_fitted, column_or_1d, validate_data

from embedcache.errors import InputError
from embedcache.probes.base import Diagnostics, Features, Groups, Matrix, ProbeKind, label_matrix
from embedcache.probes.logistic import C_GRID, FittedLogistic
from embedcache.probes.logistic_path import LogisticSolution, solve_logistic


class LogisticPath(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Logistic regression whose C is given, or chosen from a whole path.

    Minimises |w|²/2 + C · Σ s · loss as scikit-learn's LogisticRegression does: binary, softmax over several classes, or one
    fit per column of a y (n, n_labels) of 0, 1 and NaN for a missing label.

    Parameters
    ----------
    C : float or None
        Inverse strength of the penalty. None chooses it from `Cs` by the mean log loss of the `validation` rows given to
        `fit`, else of cross-validation; the smaller C wins a tie.
    Cs : sequence of float or None
        What to choose from; None is DINOv2's grid, 10^linspace(-6, 5, 45).
    cv : int or splitter
        Folds, where C is chosen without `validation`. With `groups` an int stands for stratified folds of whole groups.
    class_weight : "balanced", a mapping from class to weight, or None
        As in scikit-learn; for several labels each is balanced on its own, or the mapping's keys are 0 and 1.
    tol, max_iter, device
        See `embedcache.probes.logistic_path.solve_logistic`.

    Attributes
    ----------
    classes_ : (n_classes,), or the numbers of the columns of a y with several labels
    coef_, intercept_ : (n_outputs, n_features), (n_outputs,)
        One output for two classes, else one per class or label; NaN for a label that has one class only.
    C_, Cs_ : the C of `coef_`, and the values (n_Cs,), ascending, that it was chosen from
    path_coef_, path_intercept_ : (n_Cs, n_outputs, n_features), (n_Cs, n_outputs)
        Every C of `Cs_`, fitted to all rows given to `fit`.
    path_loss_ : (n_Cs,) mean log loss of the held-out rows, NaN where nothing was chosen
    n_iter_ : (n_Cs,) iterations of each C
    converged_ : (n_Cs,) booleans; a chosen C that did not converge raises a ConvergenceWarning
    n_features_in_ : int
    """

    def __init__(
        self,
        C: float | None = 1.0,
        *,
        Cs: Any = None,
        cv: Any = 5,
        class_weight: Literal["balanced"] | Mapping[Any, float] | None = None,
        tol: float = 1e-6,
        max_iter: int = 1000,
        device: str = "cpu",
    ) -> None:
        self.C = C
        self.Cs = Cs
        self.cv = cv
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.device = device

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        validation: tuple[Any, Any] | None = None,
        groups: Groups | None = None,
    ) -> "LogisticPath":
        """Fit X (n, d) and y (n,) or (n, n_labels); sample_weight (n,); validation `(X, y)`; groups (n,) for the folds."""
        y = self._targets(y)
        if y.ndim == 1:
            X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
            check_classification_targets(y)
        else:
            X = validate_data(self, X, dtype=[np.float64, np.float32])
        self._learn_classes(y)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        Cs = tuple(sorted({float(c) for c in (C_GRID if self.Cs is None else self.Cs)}))
        values = Cs if self.C is None else (float(self.C),)
        if not values or not all(0 < c < np.inf for c in values):
            raise InputError(f"C must be one or several positive numbers. Got {list(values)}.")
        Y = self._matrix(y)
        losses = np.full(len(values), np.nan)
        if self.C is None and validation is not None:
            held = validate_data(self, validation[0], reset=False, dtype=[np.float64, np.float32])
            losses = self._losses(
                X, Y, weight, values, held, self._matrix(self._targets(validation[1])), np.ones(len(held))
            )
        elif self.C is None:
            losses = self._cross_validated(X, y, Y, weight, values, groups)
        best = int(np.nanargmin(losses)) if np.isfinite(losses).any() else 0
        if self.C is None and not np.isfinite(losses).any():
            raise InputError("no C could be chosen: no held-out row has a label of a class that could be fitted.")
        found = self._solve(X, Y, weight, values)
        outputs = slice(1, None) if self._kind == "binary" and Y.shape[1] == 2 else slice(None)
        self.Cs_, self.path_loss_ = np.array(values), losses
        self.path_coef_, self.path_intercept_ = found.coef[:, outputs], found.intercept[:, outputs]
        self.C_, self.coef_, self.intercept_ = values[best], self.path_coef_[best], self.path_intercept_[best]
        self.n_iter_ = found.iterations.max(axis=1)
        self.converged_ = np.array([fine.all() for fine in found.converged])
        if not self.converged_[best]:
            warnings.warn(
                f"C = {self.C_:g} did not converge in {self.n_iter_[best]} iterations; raise max_iter or take a smaller C.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def decision_function(self, X: Any) -> Matrix:
        """Log-odds (n,) of the second class, or (n, n_labels); of several classes their scores (n, n_classes)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        scores = np.asarray(X.astype(np.float64) @ self.coef_.T + self.intercept_)
        if self._kind == "multiclass":
            scores[:, np.isnan(self.intercept_)] = -np.inf
        return scores[:, 0] if self._kind == "binary" else scores

    def predict_proba(self, X: Any) -> Matrix:
        """(n, n_classes), rows summing to 1; of several labels (n, n_labels), the probability of each."""
        scores = self.decision_function(X)
        if self._kind == "multiclass":
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            return np.asarray(shares / shares.sum(axis=1, keepdims=True))
        with np.errstate(over="ignore"):
            positive = np.asarray(1 / (1 + np.exp(-scores)))
        return np.stack([1 - positive, positive], axis=1) if self._kind == "binary" else positive

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The likeliest class (n,), or (n, n_labels) of 0 and 1; 0 throughout for a label without a fit."""
        scores = self.decision_function(X)
        if self._kind == "multilabel":
            return (scores > 0).astype(np.int64)
        chosen = scores.argmax(axis=1) if self._kind == "multiclass" else (scores > 0).astype(np.intp)
        return np.asarray(self.classes_[chosen])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _targets(self, y: Any) -> Any:
        if y is None:
            raise ValueError("LogisticPath requires y to be passed, but the target y is None.")
        y = np.asarray(y) if not hasattr(y, "ndim") else y
        if y.ndim == 2 and y.shape[1] > 1:
            return check_array(y, dtype=np.float64, ensure_all_finite="allow-nan", input_name="y")
        return column_or_1d(y, warn=True)

    def _learn_classes(self, y: Any) -> None:
        if y.ndim == 2:
            self.classes_: npt.NDArray[Any] = np.arange(y.shape[1])
            if not np.isin(y[~np.isnan(y)], (0, 1)).all():
                raise InputError("a y with several columns must hold 0, 1 and NaN for a missing label.")
            self._kind: ProbeKind = "multilabel"
            return
        self.classes_ = np.unique(y)
        self._kind = "binary" if len(self.classes_) == 2 else "multiclass"
        if len(self.classes_) < 2:
            raise InputError(f"y has one class only, {self.classes_[0]!r}; a classifier needs rows of at least two.")

    def _matrix(self, y: Any) -> Matrix:
        """The labels as the solver takes them; a class that `fit` has not seen is missing."""
        if y.ndim == 2:
            return np.asarray(y, dtype=np.float64)
        at = np.minimum(np.searchsorted(self.classes_, y), len(self.classes_) - 1)
        number = np.where(self.classes_[at] == y, at, np.nan)
        return label_matrix(number, self._kind, 1 if self._kind == "binary" else len(self.classes_))

    def _solve(self, X: Features, Y: Matrix, weight: Matrix, values: tuple[float, ...]) -> LogisticSolution:
        class_weight: Any = self.class_weight
        if isinstance(class_weight, Mapping) and self._kind != "multilabel":
            class_weight = {k: class_weight.get(label, 1.0) for k, label in enumerate(self.classes_.tolist())}
        found = solve_logistic(
            X,
            Y,
            values,
            multinomial=self._kind == "multiclass",
            sample_weight=weight,
            class_weight=class_weight,
            tol=self.tol,
            max_iter=self.max_iter,
            device=self.device,
        )
        if np.isnan(found.intercept).all():
            raise InputError("y has fewer than two classes among the rows that have a weight; nothing can be fitted.")
        return found

    def _losses(
        self,
        X: Features,
        Y: Matrix,
        weight: Matrix,
        values: tuple[float, ...],
        held: Features,
        truth: Matrix,
        mass: Matrix,
    ) -> Matrix:
        """(n_values,): mean log loss of the held rows under fits of the others."""
        found = self._solve(X, Y, weight, values)
        centre = X.mean(axis=0, dtype=np.float64)
        scores = FittedLogistic(values, self._kind, found.coef, found.intercept, centre, Diagnostics()).scores(held)
        if self._kind == "multiclass":
            each = -np.where(truth == 1, scores, 0.0).sum(axis=2, where=truth == 1)[..., None]
            known = (truth == 1).any(axis=1)[:, None]
        else:
            known = ~np.isnan(truth)
            each = np.logaddexp(0, np.where(known & ~np.isnan(scores), -(2 * truth - 1) * scores, 0.0))
        counts = known & ~np.isnan(scores if self._kind != "multiclass" else each) & (mass[:, None] > 0)
        total = np.einsum("n,vnk->v", mass, np.where(counts, each, 0.0))
        size = np.einsum("n,vnk->v", mass, counts.astype(np.float64))
        return np.asarray(np.divide(total, size, out=np.full(len(values), np.nan), where=size > 0))

    def _cross_validated(
        self, X: Features, y: Any, Y: Matrix, weight: Matrix, values: tuple[float, ...], groups: Groups | None
    ) -> Matrix:
        splitter = check_cv(self.cv, y if y.ndim == 1 else None, classifier=True)
        if groups is not None and isinstance(self.cv, int):
            splitter = StratifiedGroupKFold(self.cv)
        by = y if y.ndim == 1 else np.nan_to_num(y).any(axis=1)
        folds = [
            self._losses(X[fit], Y[fit], weight[fit], values, X[held], Y[held], weight[held])
            for fit, held in splitter.split(X, by, groups)
        ]
        return np.asarray(np.mean(folds, axis=0))
