"""A head of your own in torch, on cached patch tokens: `python own_tokens.py STORE TASK`.

Shows `TokenDataset`, which a torch DataLoader takes, and a head that learns where to look. Prints the loss of each epoch.
"""

import argparse

import torch
from torch.utils.data import DataLoader

from embedcache import TokenDataset


class MaxOfPatches(torch.nn.Module):
    """A logit per patch, the largest of which is the image's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = torch.nn.Linear(width, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.score(tokens).flatten(1).amax(dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", help="a .zarr store with patch tokens and its labels beside it")
    parser.add_argument("task", help="a binary task of the labels")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    data = TokenDataset(arguments.store, "patch", task=arguments.task)
    head = MaxOfPatches(data.shape[-1])
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for epoch in range(arguments.epochs):
        total = 0.0
        for tokens, y, _ in DataLoader(data, batch_size=16, shuffle=True):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(head(tokens), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(y)
        print(f"epoch {epoch}: loss {total / len(data):.4f} on {len(data)} slices of {data.shape} tokens")


if __name__ == "__main__":
    main()
