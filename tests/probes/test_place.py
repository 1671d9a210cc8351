"""A device is asked of torch, which a laptop need not have."""

import sys

import numpy as np
import pytest

from embedcache.errors import MissingPackageError
from embedcache.probes.attention import AttentionProbe
from embedcache.probes.linear_sweep import Training, sweep
from embedcache.probes.logistic_path import solve_logistic

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
Y = (X[:, :1] > 0).astype(float)


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == "torch" or name.endswith("on_torch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("embedcache.probes.on_torch", raising=False)
    monkeypatch.delattr("embedcache.probes.attention_on_torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)


ASKED = {
    "logistic": lambda: solve_logistic(X, Y, (1.0,), device="cuda"),
    "linear": lambda: sweep(
        X, Y, {"all": (slice(0, 3),)}, (0.1,), Training(5, 8), softmax=False, share=1, device="cuda"
    ),
    "attention": lambda: AttentionProbe(device="cuda").fit_bags(X, np.ones(40, int), Y[:, 0], "binary", (1.0,), 1),
}


@pytest.mark.parametrize("probe", ASKED)
@pytest.mark.usefixtures("no_torch")
def test_without_torch_one_line_says_what_to_install(probe: str) -> None:
    with pytest.raises(MissingPackageError, match=r"^device 'cuda' needs torch: pip install 'embedcache\[gpu\]'"):
        ASKED[probe]()


def test_torch_solves_what_numpy_does() -> None:
    here, there = (solve_logistic(X, Y, (0.1, 1.0), device=device) for device in ("cpu", "cpu:0"))
    np.testing.assert_allclose(there.coef, here.coef, rtol=1e-3, atol=1e-5)
