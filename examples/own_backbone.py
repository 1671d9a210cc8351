"""A torch model of your own as a backbone: `python own_backbone.py cases.csv --weights own.pt`.

Shows the two things that a family of backbones is: `describe`, without torch, and a loader, `Own`. Prints that it holds to
what every backbone promises, then the store that it made. Without --weights its numbers are random.
"""

import argparse
import hashlib
from pathlib import Path

import embedcache
from embedcache import BackboneInfo, InputError, ModelRecipe, Stage


def describe(file: str, *, compute_dtype: str, attention: str) -> BackboneInfo:
    """What is known of `own:FILE` before it is loaded; the digest of its weights tells its store from another's."""
    if (file != "random" and not Path(file).is_file()) or compute_dtype != "float32":
        raise InputError(f"own takes a file, as in own:own.pt, and float32. Got {file} and {compute_dtype}.")
    digest = hashlib.sha256(b"seed 0" if file == "random" else Path(file).read_bytes()).hexdigest()
    model = ModelRecipe("own", Path(file).stem, "", digest, attention="none", position_interpolation="none")
    return BackboneInfo(
        f"own:{file}", file, "own", model, (Stage(width=48, stride=16),), registers=0, size=(64, 64), mean=(0.5,) * 3,
        std=(0.25,) * 3, processor={}, kinds=("patch_mean", "patch_tokens"), loader="own_backbone:Own", norm="none",
    )  # fmt: skip


class Own:
    def __init__(self, info: BackboneInfo, device: str) -> None:
        import torch  # here, since describing does without it

        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 48, 16, 16), torch.nn.GELU(), torch.nn.Conv2d(48, 48, 1))
        if info.folder != "random":
            net.load_state_dict(torch.load(info.folder, weights_only=True))
        self.info, self.net = info, net.eval().requires_grad_(False).to(device)

    def tokens(self, x, arrays):  # of images x (n, 3, y, x): each of the arrays by its path, in float32
        y = self.net(x)
        kinds = {"patch_mean": y.mean((2, 3)), "patch_tokens": y.permute(0, 2, 3, 1)}
        return {array.path: kinds[array.kind] for array in arrays}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", help="CSV or Parquet with a path per row, and patient and label columns")
    parser.add_argument("--weights", default="random", help="the state_dict of Own.net, as torch.save writes it")
    parser.add_argument("--cache", default="cache")
    arguments = parser.parse_args()
    from embedcache.testing import check_backbone, plugged_in  # for tests: it imports torch

    with plugged_in(__file__, backbones={"own": "describe"}):
        check_backbone(name := f"own:{arguments.weights}")
        print(f"{name} holds to what every backbone promises")
        report = embedcache.extract(embedcache.ExtractConfig("table", arguments.table, (name,), cache=arguments.cache))
        print(embedcache.FeatureCache.open(report.stores[0].path))


if __name__ == "__main__":
    main()
