"""A linear support vector machine by C: scikit-learn's LinearSVC (liblinear), squared hinge, one per label or class.

Solved in the primal, by a trust region Newton method that draws no random numbers. Its scores are margins, no probabilities.
"""

from sklearn.svm import LinearSVC

from embedcache.probes.sklearn_probe import estimator_probe

C_GRID: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
LinearSVMProbe = estimator_probe(LinearSVC, parameter="C", grid=C_GRID, zero_too=False, dual=False, max_iter=1000)
