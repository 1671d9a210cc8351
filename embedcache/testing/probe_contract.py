"""What every probe must hold to, ours and other packages': `check_probe(name)`."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import FrozenInstanceError, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.errors import InputError
from embedcache.evaluation.metrics import macro_auroc
from embedcache.evaluation.predictions import read_predictions
from embedcache.evaluation.probe import ProbeConfig, run_probe
from embedcache.probes import REGISTRY
from embedcache.probes.base import Features, FitsFrom, FittedPath, Groups, Matrix, Probe, ProbeKind, label_matrix
from embedcache.store.fingerprint import canonical
from embedcache.testing.labelled_stores import LabelledStore, make_labelled_store
from embedcache.types import Task

CLASSES = 3
SAME = 1e-5
"""Largest difference, in units of the scores' spread, that rounding may make."""
SOLVED = 0.05
"""The same between two ways of solving that stop at a tolerance: rows in another order."""
_TASKS = {
    "binary": Task("made", "binary", ("yes",)),
    "multilabel": Task("made", "multilabel", ("a", "b", "c")),
    "multiclass": Task("made", "multiclass", ("a", "b", "c")),
    "numeric": Task("made", "numeric", ()),
}


def check_probe(name: str, **options: Any) -> None:
    """Fit a registered probe to small made-up features and hold it to what a result relies on.

    Its options are frozen and plain; it leaves its inputs and numpy's global random numbers alone, and fits the same each time;
    each query is scored whatever others are asked with it; the order of training rows, labels and queries decides nothing; a
    label of one class has no score and changes no other label's; a missing label leaves its row out of that label only; one
    patient, constant features, rows of zeros and fewer rows than features end in scores or in an InputError; signal is found,
    and none where there is none; a fit from another is the one without; a fit on a CPU imports neither torch nor transformers;
    test labels change neither the choice nor any score of a run. options: of the probe. Raises AssertionError with every breach.
    """
    probe: Probe = REGISTRY.load(name)(**options)
    breaches = [*_of_imports(name, options), *breaches_of(probe)]
    for kind in probe.answers:
        breaches += [f"{kind}: {line}" for line in _of_test_labels(name, kind, options)]
    if breaches:
        raise AssertionError(f"probe {name} breaks its contract: " + "; ".join(breaches))


def breaches_of(probe: Probe) -> Iterator[str]:
    """What a probe does not hold to by itself, on any kind of task that it answers."""
    yield from _of_description(probe)
    for kind in probe.answers:
        subject = _Subject(probe, kind)
        for check in CHECKS:
            for line in check(subject):
                yield f"{kind}: {line}"


@dataclass(frozen=True)
class _Data:
    """Training rows of 40 patients, three each, and queries of others."""

    X: Features
    y: Matrix
    groups: Groups
    queries: Features
    truth: Matrix
    """(m, n_classes) of the queries."""

    def rows(self, order: "np.ndarray[Any, Any]") -> "_Data":
        return replace(self, X=self.X[order], y=self.y[order], groups=self.groups[order])


@dataclass(frozen=True)
class _Subject:
    """A probe under examination, on one kind of task."""

    probe: Probe
    kind: ProbeKind

    @property
    def n_classes(self) -> int:
        return 1 if self.kind in ("binary", "numeric") else CLASSES

    def data(self, signal: float = 1.5, patients: int = 40, width: int = 12, seed: int = 0) -> _Data:
        """Features whose first columns carry the labels by `signal` standard deviations."""
        random = np.random.default_rng(seed)
        n, m, k = 3 * patients, 60, self.n_classes
        groups = np.repeat(np.arange(patients), 3)
        features = random.normal(size=(n + m, width)).astype(np.float32)
        if self.kind == "numeric":
            y = 50 + 10 * random.normal(size=n + m)
            features[:, 0] += (signal * (y - 50) / 10).astype(np.float32)
        elif self.kind == "multiclass":
            y = (np.arange(n + m) % k).astype(np.float64)
            features[:, :k] += signal * np.eye(k, dtype=np.float32)[y.astype(int)]
        else:
            y = (random.random((n + m, k)) < 0.4).astype(np.float64)
            features[:, :k] += signal * y.astype(np.float32)
            y = y[:, 0] if self.kind == "binary" else y
        return _Data(features[:n], y[:n], groups, features[n:], label_matrix(y[n:], self.kind, k))

    def fit(self, data: _Data, values: Sequence[float] | None = None) -> FittedPath:
        asked = tuple(values) if values is not None else self.values(data)
        return self.probe.fit_path(data.X, data.y, self.kind, asked, self.n_classes, data.groups)

    def values(self, data: _Data) -> tuple[float, ...]:
        """Three of the grid: its ends and its middle, which is what is looked at."""
        grid = self.probe.grid(len(data.X))
        return tuple(dict.fromkeys((grid[0], grid[len(grid) // 2], grid[-1])))

    def scores(self, data: _Data, values: Sequence[float] | None = None) -> Matrix:
        return self.fit(data, values).scores(data.queries)


# --- its description --------------------------------------------------------------------------------


def _of_description(probe: Probe) -> Iterator[str]:
    if not probe.answers:
        yield "it answers no kind of task"
    names = [f.name for f in fields(probe)]
    if probe.parameter not in names:
        yield f"its hyper-parameter {probe.parameter} is no field of it; there is {', '.join(names) or 'none'}"
    for name in names[:1]:
        try:
            setattr(probe, name, None)
        except FrozenInstanceError:
            continue
        yield "its options can be changed after it was made; make it a frozen dataclass"
    try:
        canonical(asdict(probe))
    except (TypeError, ValueError) as error:
        yield f"its options are no plain JSON ({error}), so a result can not record them"
    for n in (1, 10, 100_000):
        grid = probe.grid(n)
        if not grid or len(set(grid)) < len(grid) or not all(np.isfinite(grid)):
            yield f"its grid for {n} rows is {grid}: it must be finite values without a repetition"


def _of_imports(name: str, options: dict[str, Any]) -> Iterator[str]:
    """In a process of its own, where nothing was imported before."""
    code = (
        "import sys, numpy as np; from embedcache.probes import REGISTRY\n"
        f"probe = REGISTRY.load({name!r})(**{options!r}); x = np.random.default_rng(0).normal(size=(40, 4)).astype('f4')\n"
        "y = (x[:, 0] > 0).astype(float)\n"
        "probe.fit_path(x, y, probe.answers[0], probe.grid(40)[:1], 1 if probe.answers[0] != 'multiclass' else 2).scores(x)\n"
        "print(*sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        yield f"another process can not fit it: {done.stderr.strip().splitlines()[-1]}"
    elif done.stdout.strip():
        yield f"fitting it imports {done.stdout.strip()}"


# --- its scores -------------------------------------------------------------------------------------


def _of_shapes(subject: _Subject) -> Iterator[str]:
    data = subject.data()
    values = subject.values(data)
    fitted = subject.fit(data, values)
    scores = fitted.scores(data.queries)
    told = (len(values), len(data.queries), subject.n_classes)
    if fitted.values != values:
        yield f"asked for {values} it has {fitted.values}"
    if scores.shape != told or scores.dtype != np.float64:
        yield f"its scores are {scores.dtype} of shape {scores.shape}, and not float64 {told}"
        return
    if not np.isfinite(scores).all():
        yield "it has scores that are not finite"
    if not fitted.score_name:
        yield "it does not say what its scores are"
    backwards = subject.scores(data, values[::-1])[::-1]
    yield from _unlike(scores, backwards, SOLVED, "asked for in the other order")
    for i, value in enumerate(values):
        yield from _unlike(scores[i], fitted.only(value).scores(data.queries)[0], SAME, f"of {value:.3g} taken alone")


def _of_repetition(subject: _Subject) -> Iterator[str]:
    data = subject.data()
    given = (data.X.copy(), data.y.copy(), data.queries.copy())
    users = np.random.get_state()
    try:
        first = subject.scores(data)
        np.random.seed(7)  # whoever draws from the global numbers now draws others
        again = subject.scores(data)
        next_number = np.random.random()
        np.random.seed(7)
        if np.random.random() != next_number:
            yield "it draws from numpy's global random numbers"
    finally:
        np.random.set_state(users)
    if not np.array_equal(first, again, equal_nan=True):
        yield "it fits otherwise a second time"
    if not all(np.array_equal(a, b) for a, b in zip(given, (data.X, data.y, data.queries), strict=True)):
        yield "it changes its inputs"


def _of_queries(subject: _Subject) -> Iterator[str]:
    """What is asked with a query must not show in its score: else the test rows choose for each other."""
    data = subject.data()
    fitted = subject.fit(data)
    whole = fitted.scores(data.queries)
    alone = np.concatenate([fitted.scores(data.queries[i : i + 1]) for i in range(8)], axis=1)
    yield from _unlike(whole[:, :8], alone, SAME, "asked for alone")
    shift = data.queries.copy()
    shift[8:] *= 100
    yield from _unlike(whole[:, :8], fitted.scores(shift)[:, :8], SAME, "asked for beside others")


def _of_order(subject: _Subject) -> Iterator[str]:
    data = subject.data()
    scores = subject.scores(data)
    order = np.random.default_rng(3).permutation(len(data.X))
    yield from _unlike(scores, subject.scores(data.rows(order)), SOLVED, "fitted to rows in another order")
    if subject.kind == "multilabel":
        turned = replace(data, y=data.y[:, ::-1])
        yield from _unlike(scores, subject.scores(turned)[..., ::-1], SOLVED, "fitted to labels in another order")


def _of_missing(subject: _Subject) -> Iterator[str]:
    """A missing label takes its row out of that label's fit, and out of no other's."""
    data = subject.data()
    gone = np.zeros(len(data.X), dtype=bool)
    gone[:15] = True
    if subject.kind == "multilabel":
        y = data.y.copy()
        y[gone, 1] = np.nan
        scores, whole = subject.scores(replace(data, y=y)), subject.scores(data)
        yield from _unlike(whole[..., [0, 2]], scores[..., [0, 2]], SOLVED, "of a label, when another one is missing")
        for value, what in ((0, "negative"), (1, "positive")):
            taken = np.where(np.isnan(y), value, y)
            if np.array_equal(subject.scores(replace(data, y=taken))[..., 1], scores[..., 1]):
                yield f"a missing label is taken for a {what} one"
        y[:, 1] = np.nan
        if not np.isnan(subject.scores(replace(data, y=y))[..., 1]).all():
            yield "a label that no row has is scored"
        return
    y = data.y.copy()
    y[gone] = np.nan
    yield from _unlike(
        subject.scores(data.rows(np.flatnonzero(~gone)), subject.values(data)),
        subject.scores(replace(data, y=y), subject.values(data)),
        SOLVED,
        "fitted beside rows without a label",
    )


def _of_one_class(subject: _Subject) -> Iterator[str]:
    data = subject.data()
    match subject.kind:
        case "multilabel":
            y = data.y.copy()
            y[:, 1] = 0
            scores = subject.scores(replace(data, y=y))
            if not np.isnan(scores[..., 1]).all():
                yield "a label without a positive is scored"
            yield from _unlike(
                subject.scores(data)[..., 0], scores[..., 0], SOLVED, "of a label, when another has one class"
            )
        case "binary":
            if not np.isnan(subject.scores(replace(data, y=np.zeros_like(data.y)))).all():
                yield "a label without a positive is scored"
        case "multiclass":
            kept = data.rows(np.flatnonzero(data.y != 1))
            scores = subject.scores(kept)
            absent = scores[..., 1]
            if not (np.isnan(absent) | (absent <= scores[..., [0, 2]].min(axis=-1))).all():
                yield "a class without a row is not the unlikeliest"
        case "numeric":
            scores = subject.scores(replace(data, y=np.full_like(data.y, 7.0)))
            if not (np.isnan(scores) | (np.abs(scores - 7) < 1e-3)).all():
                yield "a constant target is not predicted as that constant"


def _of_hard_inputs(subject: _Subject) -> Iterator[str]:
    """Scores or an InputError; and finite scores where each class has several rows."""
    data = subject.data()
    constant, flat, empty = data.X.copy(), np.ones_like(data.X), data.X.copy()
    constant[:, 5], empty[::4] = 3.0, 0.0
    wide = subject.data(width=300, patients=10)
    for what, case in (
        ("one patient", replace(data, groups=np.zeros(len(data.X), dtype=int))),
        ("a constant feature", replace(data, X=constant)),
        ("rows of zeros", replace(data, X=empty)),
        ("constant features alone", replace(data, X=flat)),
        ("rows that are all there twice", data.rows(np.repeat(np.arange(len(data.X)), 2))),
        ("fewer rows than features", wide),
        ("features of 1e-4", replace(data, X=data.X * np.float32(1e-4), queries=data.queries * np.float32(1e-4))),
        ("features in float64", replace(data, X=data.X.astype(np.float64), queries=data.queries.astype(np.float64))),
        ("two rows", data.rows(np.arange(2))),
    ):
        try:
            scores = subject.scores(case)
        except InputError:
            continue
        except Exception as error:  # noqa: BLE001 whatever else it raises is the breach
            yield f"{what} ends in {type(error).__name__}: {error}"
            continue
        if what != "two rows" and not np.isfinite(scores).all():
            yield f"{what}: it has scores that are not finite"


def _of_signal(subject: _Subject) -> Iterator[str]:
    for signal in (3.0, 0.0):
        data = subject.data(signal=signal, patients=120)
        scores = subject.scores(data, subject.probe.grid(len(data.X)))
        found = [_skill(subject.kind, data.truth, s) for s in scores]
        if signal and max(found) < 0.7:
            yield f"of classes three standard deviations apart it finds {max(found):.2f} at best (1 is all, 0 is none)"
        if not signal and np.median(np.abs(found)) > 0.5:
            yield f"of features without signal it finds {np.median(found):.2f} (0 is none)"


def _skill(kind: ProbeKind, truth: Matrix, scores: Matrix) -> float:
    """1 where all is found, 0 where nothing is: 2 AUROC - 1, or the correlation."""
    if kind == "numeric":
        constant = np.ptp(scores) == 0
        return 0.0 if constant else float(np.corrcoef(truth[:, 0], scores[:, 0])[0, 1])
    return 2 * macro_auroc(truth, scores) - 1


def _unlike(a: Matrix, b: Matrix, most: float, when: str) -> Iterator[str]:
    """A line if scores are further apart than `most` of their spread; both may be missing."""
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        yield f"other scores are missing {when}"
        return
    finite = np.isfinite(a) & np.isfinite(b)
    spread = float(np.std(a[finite])) if finite.any() else 0.0
    apart = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    if apart > most * spread + 1e-9:
        yield f"scores are {apart:.2g} apart, of a spread of {spread:.2g}, {when}"


def _of_start(subject: _Subject) -> Iterator[str]:
    """A fit from another one is the fit of its own rows, whatever the other's scale was."""
    if not isinstance(subject.probe, FitsFrom):
        return
    most = (data := subject.data(patients=120)).rows(np.arange(270))  # of 360
    factor, shift = np.linspace(0.5, 2, data.X.shape[1]), np.linspace(-1, 1, data.X.shape[1])
    path = subject.fit(replace(most, X=(most.X * factor + shift).astype(np.float32)))
    for value in subject.values(data):
        given = data.X, data.y, subject.kind, path.only(value), (factor, shift), subject.n_classes, data.groups
        found = subject.probe.fit_from(*given).scores(data.queries)
        yield from _unlike(subject.scores(data, [value]), found, SOLVED, f"fitted from another fit, {value:.4g}")


CHECKS = (
    _of_start,
    _of_shapes,
    _of_repetition,
    _of_queries,
    _of_order,
    _of_missing,
    _of_one_class,
    _of_hard_inputs,
    _of_signal,
)


# --- through a store --------------------------------------------------------------------------------


def _of_test_labels(name: str, kind: ProbeKind, options: dict[str, Any]) -> Iterator[str]:
    """A whole run, and again with other labels in the test part."""
    with tempfile.TemporaryDirectory() as folder:
        store = make_labelled_store(
            Path(folder), _TASKS[kind], given=lambda p: ("test", "validation", "train", "train")[p % 4]
        )
        tests = [i for i, part in enumerate(store.splits) if part == "test"]
        config = ProbeConfig(name, store.store, options=options, resamples=20)
        before = run_probe(config)
        y = store.y.copy()
        y[tests] = np.roll(y[tests], 1, axis=0)
        store.relabel(y)
        after = run_probe(config)
        if after.path == before.path:
            yield "other test labels give the same result"
        if after.chosen != before.chosen:
            yield "other test labels change the choice"
        if not np.array_equal(read_predictions(after).score, read_predictions(before).score, equal_nan=True):
            yield "other test labels change a score"
        yield from _of_validation_labels(store, config, before.chosen["validation_score"])


def _of_validation_labels(store: LabelledStore, config: ProbeConfig, score: float) -> Iterator[str]:
    """The control: the same change in the validation part is seen."""
    rows = [i for i, part in enumerate(store.splits) if part == "validation"]
    y = store.y.copy()
    y[rows] = np.roll(y[rows], 1, axis=0)
    store.relabel(y)
    if run_probe(config).chosen["validation_score"] == score:
        yield "other validation labels choose with the same score"
