"""timm's and open_clip's repositories fetched by name through the hub's own client, from a small hub on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedcache.testing.tiny_timm import make_tiny_open_clip, make_tiny_timm

from .fake_hub import COMMIT, Hub, serve

pytest.importorskip("timm", reason="pip install --no-deps timm torchvision")


def described(hub: Hub, name: str, home: Path) -> list[str]:
    """What a process of its own says of a backbone that only the hub has."""
    code = (
        "from embedcache.backbones import describe_backbone\n"
        f"info = describe_backbone({name!r})\n"
        "print(info.family, info.model.source, info.model.revision, info.layers, info.pooled_size)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_model_of_timm_and_a_checkpoint_of_open_clip(tmp_path: Path) -> None:
    resnet = Path(make_tiny_timm("resnet", tmp_path / "served" / "resnet"))
    clip = Path(make_tiny_open_clip(tmp_path / "served" / "clip"))
    (clip / "README.md").write_text("words")
    old = Path(make_tiny_open_clip(tmp_path / "served" / "old"))
    (old / "open_clip_model.safetensors").rename(old / "open_clip_pytorch_model.bin")
    with serve(Hub({"timm/resnet.test": resnet, "org/clip": clip, "org/old": old})) as hub:
        home = tmp_path / "hf"
        assert described(hub, "timm:resnet.test", home) == ["timm", "timm/resnet.test", COMMIT, "5", "0"]
        assert described(hub, "org/clip", home) == ["open_clip", "org/clip", COMMIT, "6", "24"]
        assert described(hub, "org/old", home) == ["open_clip", "org/old", COMMIT, "6", "24"]
    fetched = {path.name for path in (tmp_path / "hf").rglob("snapshots/*/*")}
    assert "README.md" not in fetched
    assert {"open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"} <= fetched
