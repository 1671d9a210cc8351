"""Any scikit-learn estimator as a probe, so that another package needs one file and an entry point:

    # my_package/forest.py;  [project.entry-points."embedcache.probes"] random-forest = "my_package.forest:ForestProbe"
    ForestProbe = estimator_probe(RandomForestClassifier, parameter="max_depth", grid=(2, 4, 8), n_estimators=200)

`embedcache probe run random-forest STORE --option n_estimators=500` then fits it.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, make_dataclass, replace
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.exceptions import ConvergenceWarning

from embedcache.errors import InputError
from embedcache.probes.base import Diagnostics, Features, Groups, Matrix, Probe, ProbeKind, label_matrix

CLASSIFIES: tuple[ProbeKind, ...] = ("binary", "multilabel", "multiclass")
_PLAIN = (bool, int, float, str, type(None))
_SHAPE = "decision_function_shape"
_DECISIONS = "decision"
_PROBABILITIES = "probability"


@dataclass(frozen=True)
class FittedEstimators:
    """Estimators by value of the parameter and by label; None for a label without a fit."""

    values: tuple[float, ...]
    kind: ProbeKind
    n_classes: int
    estimators: tuple[tuple[Any, ...], ...]
    score_name: str
    """`decision`, `probability`, `value`."""
    diagnostics: Diagnostics

    @property
    def threshold(self) -> float:
        """Of a probability one half, else zero."""
        return 0.5 if self.score_name == _PROBABILITIES else 0.0

    def only(self, value: float) -> "FittedEstimators":
        """The estimators of one value alone."""
        return replace(self, values=(value,), estimators=(self.estimators[self.values.index(value)],))

    def scores(self, X: Features) -> Matrix:
        """Decisions or probabilities, in that order of preference; of a regressor its values: (n_values, n, n_classes).

        Raises InputError with what the estimator says.
        """
        try:
            return self._scores(X)
        except ValueError as error:
            of = next(type(e).__name__ for of_value in self.estimators for e in of_value if e is not None)
            raise InputError(f"{of} can not score: {_first_line(error)}") from error

    def _scores(self, X: Features) -> Matrix:
        found = np.full((len(self.values), len(X), self.n_classes), np.nan)
        for i, of_value in enumerate(self.estimators):
            for j, estimator in enumerate(of_value):
                if estimator is None:
                    continue
                if self.kind == "multiclass":
                    classes = estimator.classes_.astype(np.int64)
                    found[i][:, classes] = _both(_outcomes(estimator, X))
                elif self.kind == "numeric":
                    found[i, :, j] = np.asarray(estimator.predict(X)).reshape(len(X))
                else:
                    outcome = _outcomes(estimator, X)
                    found[i, :, j] = outcome if outcome.ndim == 1 else outcome[:, 1]
        return found


class EstimatorProbe:
    """What `estimator_probe` makes; its fields are the estimator's options."""

    parameter: ClassVar[str]
    answers: ClassVar[tuple[ProbeKind, ...]]
    standardize: ClassVar[bool]
    smoothest: ClassVar[str]
    made_by: ClassVar[Callable[..., Any]]
    zero_too: ClassVar[bool]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __post_init__(self) -> None:
        try:
            self._estimator(getattr(self, self.parameter)[0])
        except (TypeError, ValueError) as error:
            raise InputError(f"{_named(self.made_by)} refuses an option: {_first_line(error)}") from error

    def grid(self, n_train: int) -> tuple[float, ...]:
        """The given values, from the smoothest model on. Independent of `n_train`."""
        values = tuple(sorted(set(getattr(self, self.parameter)), reverse=self.smoothest == "largest"))
        return values

    def fit_path(
        self,
        X: Features,
        y: Features,
        kind: ProbeKind,
        values: tuple[float, ...],
        n_classes: int,
        groups: Groups | None = None,
    ) -> FittedEstimators:
        """Fit each of `values`, one estimator per label; a missing label leaves its row out of that label's fit.

        A label with one class gets no fit, and NaN for scores. Raises InputError with what the estimator says, and for one that
        scores pairs of classes in place of classes.
        """
        if not np.isfinite(X).all():
            raise InputError("the features hold numbers that are not finite; `embedcache verify` finds the rows.")
        if kind == "multiclass" and (name := self._scores_pairs()) is not None:
            raise InputError(
                f"{_named(self.made_by)} with {name} = 'ovo' scores pairs of classes, and a score for each class is needed; "
                "leave it at 'ovr'."
            )
        targets = _targets(y, kind, n_classes)
        told: list[str] = []
        stopped = []
        fitted = []
        for value in values:
            found: list[Any] = []
            converged = True
            for target in targets:
                known = ~np.isnan(target)
                distinct = len(np.unique(target[known]))
                if distinct < (1 if kind == "numeric" else 2):
                    found.append(None)
                    continue
                estimator, lines, fine = self._fit(X[known], target[known], value)
                found.append(estimator)
                told += [line for line in lines if line not in told]
                converged &= fine
            fitted.append(tuple(found))
            if not converged:
                stopped.append(value)
        if stopped:
            told.append(f"{len(stopped)} values of {self.parameter} did not converge.")
        first = next((e for of_value in fitted for e in of_value if e is not None), None)
        software = {"estimator": f"scikit-learn {version('scikit-learn')} {_named(self.made_by)}"}
        diagnostics = Diagnostics(tuple(told), tuple(stopped), software)
        return FittedEstimators(values, kind, n_classes, tuple(fitted), _score_name(first, kind), diagnostics)

    def _scores_pairs(self) -> str | None:
        """The option by which the decisions of several classes are those of pairs of them, of the estimator or a part of it."""
        options = self._estimator(getattr(self, self.parameter)[0]).get_params()
        pairs = [name for name, value in options.items() if name.split("__")[-1] == _SHAPE and value == "ovo"]
        return pairs[0] if pairs else None

    def _fit(self, X: Features, y: Matrix, value: float) -> tuple[Any, list[str], bool]:
        """An estimator, what it warned of, and whether it converged."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                estimator = self._estimator(value).fit(X, y)
            except (ValueError, np.linalg.LinAlgError) as error:
                raise InputError(f"{_named(self.made_by)} can not be fitted: {_first_line(error)}") from error
        lines = [_first_line(w.message) for w in caught if not issubclass(w.category, ConvergenceWarning)]
        return estimator, lines, all(not issubclass(w.category, ConvergenceWarning) for w in caught)

    def _estimator(self, value: float) -> BaseEstimator:
        options = {f.name: getattr(self, f.name) for f in fields(self)}
        return clone(type(self).made_by().set_params(**{**options, self.parameter: value}))


def estimator_probe(
    factory: Callable[..., Any],
    *,
    parameter: str,
    grid: tuple[float, ...],
    smoothest: str = "smallest",
    standardize: bool = True,
    zero_too: bool = True,
    **options: Any,
) -> Callable[..., Probe]:
    """A probe of a scikit-learn classifier (one per label) or regressor, whose `parameter` validation chooses from `grid`.

    factory: the class, or a function without arguments that returns a pipeline. smoothest: which end of the grid,
    `smallest` or `largest`, is the smoothest model, which wins a tie. standardize: whether features are standardised
    unless the user says otherwise. zero_too: whether 0 may stand in the grid; what else the estimator does not take it
    refuses itself. options: values in place of the estimator's own; the user may change these and all its other options
    that are plain numbers, texts, booleans or None. A `random_state` of None becomes 0, so that a fit can be repeated.
    Raises InputError for a parameter that the estimator has not.
    """
    estimator = factory()
    known: Mapping[str, Any] = estimator.get_params()
    for name in (parameter, *options):
        if name not in known:
            raise InputError(f"{_named(factory)} has no option {name!r}; it has {', '.join(sorted(known))}.")
    if not (is_classifier(estimator) or is_regressor(estimator)):
        raise InputError(f"{_named(factory)} is neither a classifier nor a regressor, so it can be no probe.")
    if smoothest not in ("smallest", "largest"):
        raise InputError(f"smoothest must be 'smallest' or 'largest'. Got {smoothest!r}.")
    plain = {name: options.get(name, value) for name, value in known.items() if _is_plain(options.get(name, value))}
    for name in plain:
        if name.split("__")[-1] == "random_state" and plain[name] is None:
            plain[name] = 0
    plain[parameter] = tuple(grid)
    answers: tuple[ProbeKind, ...] = CLASSIFIES if is_classifier(estimator) else ("numeric",)
    made = make_dataclass(
        f"{_named(factory)}Probe",
        [(name, Any, field(default=value)) for name, value in plain.items()],
        bases=(EstimatorProbe,),
        namespace={
            "parameter": parameter,
            "answers": answers,
            "standardize": standardize,
            "smoothest": smoothest,
            "zero_too": zero_too,
            "made_by": staticmethod(factory),
            "__doc__": f"{_named(factory)} of scikit-learn by {parameter}.",
        },
        frozen=True,
    )
    return made


def _targets(y: Features, kind: ProbeKind, n_classes: int) -> list[Matrix]:
    """What each estimator is fitted to: numbers (n,), NaN where missing."""
    if kind in ("multiclass", "numeric"):
        return [np.asarray(y, dtype=np.float64).reshape(len(y))]
    return list(label_matrix(y, kind, n_classes).T)


def _outcomes(estimator: Any, X: Features) -> Matrix:
    if hasattr(estimator, "decision_function"):
        return np.asarray(estimator.decision_function(X), dtype=np.float64)
    return np.asarray(estimator.predict_proba(X), dtype=np.float64)


def _both(outcome: Matrix) -> Matrix:
    """Of two classes the decision is one column, which is for the second one."""
    return np.stack([-outcome, outcome], axis=1) if outcome.ndim == 1 else outcome


def _score_name(estimator: Any, kind: ProbeKind) -> str:
    if kind == "numeric":
        return "value"
    return _PROBABILITIES if estimator is not None and not hasattr(estimator, "decision_function") else _DECISIONS


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) and not (isinstance(value, float) and not np.isfinite(value))


def _named(factory: Any) -> str:
    return str(getattr(factory, "__name__", type(factory).__name__))


def _first_line(error: Any) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
