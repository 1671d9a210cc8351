"""What an extraction says when it is done."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StoreReport:
    """One backbone's store after the run."""

    backbone: str
    view: int
    """Which view of the slices it holds."""
    path: str
    fingerprint: str
    slices: int
    """Rows: of `unit` volume these are whole volumes."""
    unit: str
    quarantined: int
    """Rows of asked samples that are set aside."""
    bad_samples: int
    """The samples that they belong to."""
    arrays: tuple[str, ...]


@dataclass(frozen=True)
class ExtractReport:
    """What an extraction did."""

    dataset: str
    ids: str
    """Whose ids the stores have: `public`, `kept` or `pseudonym`."""
    samples: int
    stores: tuple[StoreReport, ...]
    decoded: int
    """Slices that were decoded in this run: 0 where everything was there."""
    seconds: float
    binds: str
    """The stage that everything else waited for, "" where nothing ran."""
    quarantined: dict[str, int]
    """Reason → rows of the asked samples that are set aside for it, in the first store."""
    bad_samples: int
    """Asked samples of which a slice is set aside, in the store that has most of them."""
    allowed_bad: int
    labels: str
    """Digest of the label table."""
    notices: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """1 where more samples were set aside than `allow_bad` says, else 0."""
        return 1 if self.bad_samples > self.allowed_bad else 0
