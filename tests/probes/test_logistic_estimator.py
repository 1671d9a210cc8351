"""`LogisticPath` is an estimator as scikit-learn wants one."""

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from embedcache.probes.estimators import LogisticPath


@parametrize_with_checks([LogisticPath(tol=1e-9), LogisticPath(C=None, Cs=(0.1, 1.0), cv=2, tol=1e-9)])
def test_scikit_learns_own_checks(estimator: LogisticPath, check) -> None:  # type: ignore[no-untyped-def]
    check(estimator)
