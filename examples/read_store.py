"""A store read without embedcache, by numpy, xarray and torch: `python read_store.py STORE --array layer_12/cls_token`.

Shows the two things that a reader must know: arrays are Zarr, and `row_status` is 1 where a row is good (a store ends with empty
rows, and what could not be read is zeros). Prints the shape of what each library has in hand.
"""

import argparse

import numpy as np
import torch
import xarray
import zarr


def in_numpy(store: str, array: str) -> np.ndarray:
    root = zarr.open_group(store, mode="r")
    return root[array][:][root["row_status"][:] == 1]


def in_xarray(store: str, array: str) -> xarray.DataArray:
    layer, _, kind = array.rpartition("/")
    good = np.flatnonzero(xarray.open_zarr(store)["row_status"] == 1)
    return xarray.open_zarr(store, group=layer)[kind].isel(slice=good)  # its dimensions have names; nothing is read yet


class InTorch(torch.utils.data.Dataset):
    """For a DataLoader: each item is read when it is asked for, so that patch tokens need not fit into memory."""

    def __init__(self, store: str, array: str) -> None:
        root = zarr.open_group(store, mode="r")
        self.tokens, self.good = root[array], np.flatnonzero(root["row_status"][:] == 1)

    def __len__(self) -> int:
        return len(self.good)

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.from_numpy(self.tokens[self.good[i]]).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", help="a .zarr store, complete")
    parser.add_argument(
        "--array", default="layer_12/cls_token", help="`ls STORE` shows the layers, `ls STORE/layer_12` the kinds"
    )
    arguments = parser.parse_args()

    print("numpy:", in_numpy(arguments.store, arguments.array).shape)
    print("xarray:", dict(in_xarray(arguments.store, arguments.array).sizes))
    batches = torch.utils.data.DataLoader(InTorch(arguments.store, arguments.array), batch_size=16)
    print("torch:", *(tuple(batch.shape) for batch in batches))


if __name__ == "__main__":
    main()
