"""Linear heads of all learning rates and vectors at once: `probe linear`'s training beside DINOv2's way, on the same features.

20,000 rows of five tokens of 1,024 numbers (class tokens of four blocks, mean patch token of the last), in memory in float32;
14 labels; batches of 128. 16 heads: 4 learning rates on 4 vectors (the study's); 52: 13 on the same (DINOv2's).

ours: `sweep`, all of it: putting the rows in order, drawing the batches, training. baseline: DINOv2's way, written here: every
head an `nn.Linear` in one `ModuleDict`, which concatenates its own tokens of the batch, the sum of the losses, one SGD
optimiser with a group per head, `CosineAnnealingLR`. It is given the batches, and reads each once for all heads. It runs as the
fastest of its variants does in short trials: 1 or all cores as torch's threads, and torch's plain, foreach and fused optimiser.

ratio: 16 heads; ratio_52: 52. ratio_views, ratio_views_52: against a better baseline, whose tokens lie side by side from the
start, so that every head is handed a view of the batch and nothing is concatenated. bound_seconds: what reading the batches and
the products forward and backward take by themselves, on the same threads. same_losses: every head's mean loss over the last
100 batches, to 1e-4 of it.

processor: seconds of all threads, ours and the baseline's.

`--quick`: fewer rows and iterations; no check asks for a ratio.
"""

import argparse
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import finish, seconds
from threadpoolctl import threadpool_limits

from embedcache.probes.by_bound import cores
from embedcache.probes.linear import PRESETS, LinearProbe
from embedcache.probes.linear_sweep import LAST, Swept, Training, in_order, sweep

E, LABELS, BATCH = 1024, 14, 128
CHOICES = {
    "cls": (slice(3 * E, 4 * E),),
    "cls+mean": (slice(3 * E, 5 * E),),
    "cls of 4": (slice(0, 4 * E),),
    "cls+mean of 4": (slice(0, 5 * E),),
}
CLOSE = 1e-4


@dataclass(frozen=True)
class Task:
    X: npt.NDArray[np.float32]
    Y: npt.NDArray[np.float64]
    rates: tuple[float, ...]
    training: Training

    @property
    def heads(self) -> list[tuple[str, float]]:
        return [(choice, rate) for choice in CHOICES for rate in self.rates]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4,000 rows, 120 iterations, one round")
    quick = parser.parse_args().quick
    n, iterations, rounds = (4_000, 120, 1) if quick else (20_000, 600, 3)
    X, Y = draw(n)
    found = {}
    for preset in PRESETS:
        rates = LinearProbe(preset=preset, batch_size=BATCH).grid(n)  # type: ignore[arg-type]
        task = Task(X, Y, rates, Training(iterations, BATCH))
        found[len(task.heads)] = compare(task, rounds)
    small, large = found[16], found[52]
    checks = {"same_losses": max(f["largest_difference"] for f in found.values()) <= CLOSE}
    if not quick:
        checks |= {"at_least_2": small["ratio"] >= 2, "at_least_4_of_52": large["ratio"] >= 4}
    finish(
        "linear_sweep",
        checks,
        ours=small["ours"],
        baseline=small["baseline"],
        baseline_name="DINOv2's: a ModuleDict of nn.Linear that concatenate their tokens, under one SGD",
        ratio=small["ratio"],
        ratio_52=large["ratio"],
        ratio_views=small["ratio_views"],
        ratio_views_52=large["ratio_views"],
        bound_seconds=small["bound_seconds"],
        bound_seconds_52=large["bound_seconds"],
        unit="s",
        heads=found,
        shape=[n, 5, E, LABELS],
        iterations=iterations,
    )


def draw(n: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Rows, of which the labels (5% positive) are told by a few directions."""
    random = np.random.default_rng(0)
    X = random.standard_normal((n, 5 * E), dtype=np.float32)
    score = X @ random.standard_normal((5 * E, LABELS), dtype=np.float32) / 30
    score += 2 * random.logistic(size=score.shape)
    return X, (score > np.quantile(score, 0.95, axis=0)).astype(np.float64)


def compare(task: Task, rounds: int) -> dict[str, Any]:
    order = in_order(task.X, task.Y)
    batches = order[task.training.batches(len(order))]
    start = {width: first(task, order, width) for width in (E, 2 * E, 4 * E, 5 * E)}
    few = batches[: 4 * rounds]
    scale = len(batches) / len(few)

    def trial(threads: int, kind: str, concatenate: bool) -> float:
        return scale * min(
            seconds(lambda: by_modules(task, few, start, threads, kind, concatenate)) for _ in range(rounds)
        )

    trial(1, "plain", concatenate=True)  # torch's first products take longer
    variants = list(product(sorted({1, cores()}), ("plain", "foreach", "fused")))
    trials = {variant: trial(*variant, concatenate=True) for variant in variants}
    threads, kind = min(trials, key=lambda variant: trials[variant])
    ours, theirs, views = [], [], []
    for _ in range(rounds):
        ours.append(Timed.of(lambda: by_sweep(task)))
        theirs.append(Timed.of(lambda: by_modules(task, batches, start, threads, kind, concatenate=True)))
        views.append(Timed.of(lambda: by_modules(task, batches, start, threads, kind, concatenate=False)))
    least = min(seconds(lambda: bound(task, batches)) for _ in range(rounds))
    mine, baseline, with_views = (min(run.seconds for run in runs) for runs in (ours, theirs, views))
    processor = [round(min(run.processor for run in runs), 2) for runs in (ours, theirs)]
    found, last = ours[0].made, theirs[0].made
    losses = np.concatenate([found[choice].losses[:, -LAST:].mean(axis=1, dtype=np.float64) for choice in CHOICES])
    figure = {
        "ours": round(mine, 3),
        "baseline": round(baseline, 3),
        "ratio": round(baseline / mine, 3),
        "views": round(with_views, 3),
        "ratio_views": round(with_views / mine, 3),
        "processor": processor,
        "bound_seconds": round(least, 3),
        "variant": f"{threads} threads, {kind}",
        "trials": {f"{t} threads, {k}": round(took, 2) for (t, k), took in trials.items()},
        "largest_difference": float(np.abs(losses / last - 1).max()),
        "losses": [round(float(losses.min()), 4), round(float(losses.max()), 4)],
    }
    print(len(task.heads), "heads", figure, flush=True)
    return figure


@dataclass(frozen=True)
class Timed:
    seconds: float
    processor: float
    """Seconds of all threads: what is left to compare where the machine is busy."""
    made: Any

    @classmethod
    def of(cls, work: Callable[[], Any]) -> "Timed":
        kept: list[Any] = []
        before = time.process_time()
        took = seconds(lambda: kept.append(work()))
        return cls(took, time.process_time() - before, kept[0])


def by_sweep(task: Task) -> dict[str, Swept]:
    return sweep(task.X, task.Y, CHOICES, task.rates, task.training, softmax=False, share=LABELS)


def first(task: Task, order: npt.NDArray[np.int64], width: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([task.training.first_weights(of, width) for of in task.Y[order].T]))


def by_modules(
    task: Task,
    batches: npt.NDArray[np.int64],
    start: dict[int, torch.Tensor],
    threads: int,
    kind: str,
    concatenate: bool,
) -> npt.NDArray[np.float64]:
    """Each head's mean loss over the last batches. As DINOv2 trains its heads."""
    torch.set_num_threads(threads)
    X, Y = torch.from_numpy(task.X), torch.from_numpy(task.Y.astype(np.float32))
    rows = torch.from_numpy(batches)
    heads, groups = torch.nn.ModuleDict(), []
    for i, (choice, rate) in enumerate(task.heads):
        (columns,) = CHOICES[choice]
        head = torch.nn.Linear(columns.stop - columns.start, LABELS)
        with torch.no_grad():
            head.weight.copy_(start[head.in_features])
            head.bias.zero_()
        heads[str(i)] = head
        groups.append({"params": head.parameters(), "lr": rate})
    flags: dict[str, Any] = {} if kind == "plain" else {kind: True}
    optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=0, **flags)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, task.training.iterations)
    criterion = torch.nn.BCEWithLogitsLoss()
    columns_of = [CHOICES[choice][0] for choice, _ in task.heads]
    last = []
    for t, at in enumerate(rows):
        x, y = X[at], Y[at]
        views = {choice: x[:, columns] for choice, (columns,) in CHOICES.items()}
        losses = []
        for (choice, _), columns, head in zip(task.heads, columns_of, heads.values(), strict=True):
            if concatenate:
                tokens = [x[:, a : a + E] for a in range(columns.start, columns.stop, E)]
                losses.append(criterion(head(torch.cat(tokens, dim=1)), y))
            else:
                losses.append(criterion(head(views[choice]), y))
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
        schedule.step()
        if t >= len(rows) - LAST:
            last.append(torch.stack([loss.detach() for loss in losses]))
    return torch.stack(last).double().mean(0).numpy()


def bound(task: Task, batches: npt.NDArray[np.int64]) -> None:
    """The batches read, and the products of all heads forward and backward: nothing else, on as many threads."""
    runs = (slice(0, 3 * E), 2), (slice(3 * E, 4 * E), 4), (slice(4 * E, 5 * E), 2)
    workers = min(cores(), len(task.rates))

    def work(share: int) -> None:
        widths = [(columns, users * share * LABELS) for columns, users in runs]
        weights = [np.ones((c.stop - c.start, w), dtype=np.float32) for c, w in widths]
        slopes = [np.full((BATCH, w), 1e-6, dtype=np.float32) for _, w in widths]
        gradients = [np.empty_like(w) for w in weights]
        for rows in batches:
            taken = [task.X[rows, c] for c, _ in widths]
            for x, w in zip(taken, weights, strict=True):
                x @ w
            for x, slope, gradient in zip(taken, slopes, gradients, strict=True):
                np.matmul(x.T, slope, out=gradient)

    each = [math.ceil((len(task.rates) - i) / workers) for i in range(workers)]
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, each))


if __name__ == "__main__":
    main()
