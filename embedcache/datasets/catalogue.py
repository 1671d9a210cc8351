"""`embedcache datasets`: what there is to be read, how large it was published, and under which licence."""

from dataclasses import dataclass

from embedcache.datasets import REGISTRY, find_adapter


@dataclass(frozen=True)
class DatasetEntry:
    """One registered dataset, or a layout for data of one's own."""

    name: str
    version: str
    samples: int | None
    """As published; None for a layout."""
    what: str
    """What the samples are."""
    patients: int | None
    """None where the dataset does not say."""
    split: str
    """Where its parts come from."""
    licence: str
    citation: str
    homepage: str
    """Where to get it; for a layout, what it is."""


def describe_datasets() -> list[DatasetEntry]:
    """Every registered dataset: first those that were published, then the layouts, each sorted by name."""
    entries = []
    for name in REGISTRY.names():
        adapter = find_adapter(name)
        info, size = adapter.info, adapter.published
        entries.append(
            DatasetEntry(
                name=name,
                version=info.version,
                samples=size.samples if size else None,
                what=size.what if size else "",
                patients=size.patients if size else None,
                split=size.split if size else "",
                licence=info.licence,
                citation=info.citation,
                homepage=info.homepage,
            )
        )
    return sorted(entries, key=lambda entry: (entry.samples is None, entry.name))
