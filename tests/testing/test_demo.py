import importlib.util
import shlex
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedcache_cli.main import app
from typer.testing import CliRunner

import embedcache
from embedcache.datasets.private import data_dir
from embedcache.errors import MissingPackageError
from embedcache.images import open_image
from embedcache.testing import demo, demo_images
from embedcache.testing.trained_vit import has_trained_vit, make_random_vit


@pytest.fixture(autouse=True)
def packages() -> None:
    if not has_trained_vit():
        pytest.skip("the demo needs the test weights' package and onnx")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> demo_images.DemoImages:
    return demo_images.make_images(tmp_path_factory.mktemp("demo") / "images")


@pytest.fixture
def small_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random backbone of 12 narrow layers in place of the trained one: the same path in a few seconds."""

    def make(folder: Path) -> Path:
        if folder.exists():
            return folder
        return make_random_vit(folder, hidden_size=32, layers=12, heads=2, image_size=56)

    monkeypatch.setattr(demo, "make_trained_vit", make)


def sources(html: str) -> Iterator[str]:
    """What the page's `src` and `href` attributes point to."""
    for attribute in ('src="', 'href="'):
        yield from (part.split('"', 1)[0] for part in html.split(attribute)[1:])


@pytest.mark.usefixtures("small_weights")
def test_the_demo_tells_one_true_story_and_a_rerun_resumes_it(
    tmp_path: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    told: list[str] = []
    report = embedcache.run_demo(out, told.append)

    assert report.decoded == report.slices == 126
    assert report.decoded_again == 0
    assert set(report.auroc) == {"logistic", "knn"}
    assert all(m.n == 24 and m.patients == 6 for m in report.auroc.values())
    assert any("0 slices decoded" in line for line in told)
    assert any("not DINOv2's weights" in line and "nothing is clinical" in line for line in told)

    html = Path(report.page).read_text("utf-8")
    text = unescape(html)
    assert "a trained ViT-S/14 in DINOv2 format" in text
    assert "these are not DINOv2's weights" in text
    assert "nothing is clinical" in text
    assert f"{report.auroc['knn'].value:.3f}" in text
    assert "its tokens are the same to the last bit" in text  # one radiograph in two encodings
    embedded = list(sources(html))
    assert len(embedded) > 30
    assert all(source.startswith("data:image/png;base64,") for source in embedded)
    assert "http" not in html  # nothing is fetched
    assert str(tmp_path) not in html  # nor is the user's folder told to whom the page is shown

    # the user's own home was not touched, and is in place again
    assert list(empty_home.iterdir()) == []
    assert data_dir() == empty_home

    again = embedcache.run_demo(out)
    assert again.decoded == 0
    assert again.auroc == report.auroc
    assert "an earlier run had decoded them all" in Path(again.page).read_text("utf-8")

    # the commands on the page are the ones that made it: they find everything done
    commands = unescape(html.split("<pre>")[1].split("</pre>")[0]).replace("\\\n", "").splitlines()
    monkeypatch.chdir(out)
    monkeypatch.setenv("EMBEDCACHE_HOME", shlex.split(commands[0], comments=True)[1].split("=")[1])
    outputs = []
    for command in commands[1:]:
        program, *arguments = shlex.split(command)
        assert program == "embedcache"
        outcome = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert outcome.exit_code == 0, outcome.output
        outputs.append(outcome.output)
    assert "everything was there already" in outputs[0]
    assert f"{report.auroc['logistic'].value:.3f}" in outputs[2]
    assert (out / "logistic.png").exists()


@pytest.mark.slow
def test_the_trained_weights_see_something(tmp_path: Path) -> None:
    report = embedcache.run_demo(tmp_path / "out")
    assert report.decoded == 126
    for m in report.auroc.values():
        assert m.value is not None
        assert m.value > 0.7  # .91 were measured; the interval reaches down to .5


def test_a_missing_package_is_named_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def hidden(name: str) -> Any:
        return None if name in ("nilearn", "data_store") else find(name)

    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    with pytest.raises(MissingPackageError, match=r"nilearn, pydicom-data: pip install 'embedcache\[dev\]'"):
        embedcache.run_demo(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_home_is_put_back_after_a_failure(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> Path:
        assert data_dir() == tmp_path / "out" / "home"
        raise OSError("no space left")

    monkeypatch.setattr(demo, "make_trained_vit", fail)
    with pytest.raises(OSError, match="no space"):
        embedcache.run_demo(tmp_path / "out")
    assert data_dir() == home


def test_slabs_are_the_heads_own_slices(images: demo_images.DemoImages) -> None:
    head = open_image(str(demo_images._packaged("nilearn", "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")))
    for i in (0, 13, demo_images.SLABS - 1):
        first = demo_images.slab_start(i)
        slab = open_image(str(images.folder / "head" / f"{demo_images.slab_id(i)}.nii"))
        expected = head.read(first, first + demo_images.SLAB_SLICES)
        np.testing.assert_array_equal(slab.read(0, slab.n_slices).pixels, expected.pixels)
        assert slab.affine is not None
        assert expected.affine is not None
        np.testing.assert_allclose(slab.affine, expected.affine)


def test_every_part_has_both_answers_and_no_slab_touches_another(images: demo_images.DemoImages) -> None:
    part = {row["id"]: row["split"] for row in demo_images.rows_of(images.table)}
    rows = demo_images.rows_of(images.labels)
    seen = {(part[row["id"]], row["grey_rich"]) for row in rows}
    assert seen == {(p, answer) for p in ("train", "validation", "test") for answer in "01"}
    assert sum(row["grey_rich"] == "1" for row in rows) == len(rows) / 2  # above the median
    heights = {int(row["height_mm"]): row["id"] for row in rows}
    assert len(heights) == len(rows)
    for height, slab in heights.items():
        assert all(heights.get(height + step, slab) == slab for step in (1, 2))


def test_share_of_grey_matter() -> None:
    grey, white = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    grey[..., 1], white[..., 1] = 255, 85  # sums beyond one byte
    white[0, 0, 2] = 1
    np.testing.assert_allclose(demo_images.grey_share(grey, white), [np.nan, 0.75, 0])


def test_images_are_written_whole_or_not_at_all(images: demo_images.DemoImages, tmp_path: Path) -> None:
    left = tmp_path / "images.partial" / "head"
    left.mkdir(parents=True)
    (left / "slab-00.nii").write_bytes(b"killed")
    again = demo_images.make_images(tmp_path / "images")
    assert not left.exists()
    one, other = (
        {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in (images.folder, again.folder)
    )
    assert one == other
