"""`nnunet`: a folder with `dataset.json`, imagesTr and labelsTr, as nnU-Net and the Segmentation Decathlon have it."""

import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.datasets.base import Dataset, DatasetOptions, adapter
from embedcache.datasets.case_lists import DOCUMENT, VOLUMES, Case, cases, label_names, read_document, stem
from embedcache.datasets.publishing import COMMON_OPTIONS, Masks, file_names, published_dataset
from embedcache.errors import InputError, suggest
from embedcache.types import DatasetInfo, Samples, strings

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<number>\d{4})")


@adapter(
    DatasetInfo(name="nnunet", homepage="a folder of your own: dataset.json, imagesTr, labelsTr (nnU-Net or Decathlon)")
)
def open_nnunet(root: Path, options: DatasetOptions) -> Dataset:
    """The cases of imagesTr, sorted, and those of imagesTs whose masks are in labelsTs, which are `test`; a case is a patient.

    Of a dataset with several channels one is read: the first, or `--channel`; where a file holds them all as its fourth axis, as
    in the Decathlon, that is chosen as a time point is. Raises InputError if `dataset.json` or every case is missing, and for
    a channel that is not there.
    """
    options.only("nnunet", *COMMON_OPTIONS, "channel")
    document = read_document(root)
    ending = str(document.get("file_ending") or "")
    endings = (ending,) if ending else VOLUMES
    channel, notices = _channel(document, options.channel, _together(root, endings))
    listed = {case.name for case in cases(document, "training")}
    found: list[tuple[Case, str]] = []
    missing: list[str] = []
    for part, split in (("Tr", ""), ("Ts", "test")):
        images = _images(root, part, endings, channel)
        masks = {stem(name): name for name in file_names(root / f"labels{part}", endings)}
        if part == "Tr":
            everyone = sorted({*listed, *images, *masks})
            missing += _lacking(
                everyone, images, f"an image in imagesTr, though a mask is there or {DOCUMENT} lists it"
            )
            missing += _lacking(
                everyone, {*masks, *(name for name in everyone if name not in images)}, "a mask in labelsTr"
            )
        elif len(images) > len(masks):
            notices.append(f"{len(set(images) - set(masks))} cases of imagesTs have no mask, and are left out")
        for name in sorted(set(images) & set(masks)):
            found.append((Case(name, f"images{part}/{images[name]}", f"labels{part}/{masks[name]}"), split))
    if not found:
        raise InputError(f"{root.name} holds no case in imagesTr with its mask in labelsTr; is --channel right?")
    expected = document.get("numTraining")
    if isinstance(expected, int) and expected != sum(split == "" for _, split in found):
        notices.append(
            f"{sum(split == '' for _, split in found)} of the {expected} training cases of {DOCUMENT} are here"
        )
    ids = strings([case.name for case, _ in found])
    samples = Samples(
        id=ids,
        patient_id=ids,
        path=strings([str(root / case.image) for case, _ in found]),
        split=strings([split for _, split in found]),
        row=np.arange(1, len(found) + 1),
        listing=DOCUMENT,
    )
    masks_of = Masks(strings([str(root / case.mask) for case, _ in found]), label_names(document))
    info = DatasetInfo(name=re.sub(r"[^A-Za-z0-9._-]+", "-", root.name).strip("-._") or "nnunet")
    return published_dataset(info, None, options, samples, [], {}, masks=masks_of, missing=missing, notices=notices)


def _lacking(everyone: list[str], present: Container[str], what: str) -> tuple[str, ...]:
    """A line for the cases without `what`. A user's own case is named by its place: its name may tell a patient."""
    places = [i for i, name in enumerate(everyone, start=1) if name not in present]
    if not places:
        return ()
    more = f", and {len(places) - 1} more" if len(places) > 1 else ""
    return (f"case {places[0]} of {len(everyone)}, sorted by name, lacks {what}{more}",)


def _channel(document: Mapping[str, Any], asked: str | None, together: bool) -> tuple[int, list[str]]:
    """The number of the channel to read, and what the user should know. `together`: whether a file holds all channels."""
    channels = document.get("channel_names", document.get("modality", {}))
    if not isinstance(channels, dict) or not all(str(number).isdecimal() for number in channels):
        raise InputError(f"'channel_names' in {DOCUMENT} must be numbers and names; take the dataset's own.")
    by_name = {str(name): int(number) for number, name in channels.items()} | {n: int(n) for n in map(str, channels)}
    numbered = ", ".join(f"{number} {name}" for number, name in channels.items())
    if asked is not None:
        if asked not in by_name:
            raise InputError(str(suggest("--channel", asked, by_name)))
        if together and len(channels) > 1:
            raise InputError(f"each file holds all channels ({numbered}): choose with --time {by_name[asked]}.")
        return by_name[asked], []
    if len(channels) > 1 and together:
        return 0, [
            f"each file holds {len(channels)} channels ({numbered}): the one that --time says is read, or else 0"
        ]
    if len(channels) > 1:
        names = ", ".join(str(name) for name in channels.values())
        return 0, [f"of the {len(channels)} channels ({names}) the first is read; name another with --channel"]
    return 0, []


def _together(root: Path, endings: tuple[str, ...]) -> bool:
    """Whether the names of images say no channel, as in the Decathlon."""
    names = [stem(name) for part in ("Tr", "Ts") for name in file_names(root / f"images{part}", endings)]
    return not (names and all(_CHANNEL.fullmatch(name) for name in names))


def _images(root: Path, part: str, endings: tuple[str, ...], channel: int) -> dict[str, str]:
    """Case → file of the asked channel; the Decathlon's files have no channel in their names."""
    names = {stem(name): name for name in file_names(root / f"images{part}", endings)}
    numbered = {name: _CHANNEL.fullmatch(name) for name in names}
    if names and all(numbered.values()):
        return {m["case"]: names[name] for name, m in numbered.items() if m and int(m["number"]) == channel}
    return names
