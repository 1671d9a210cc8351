"""What the root of a store says (FORMAT.md, section 3).

A store's metadata is a pure function of one `Root`, so that it can be put at once, the root last.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from embedcache.errors import NewerFormatError, StoreError
from embedcache.store.fingerprint import canonical, fingerprint, recipe_document
from embedcache.store.layout import ATTRIBUTE, FORMAT, MAX_QUANTUM, VERSION
from embedcache.store.passes import PASS_KEYS, check_pass, describe_pass, make_pass
from embedcache.store.typed import typed
from embedcache.types import DatasetInfo, Pass, Recipe, Unit

ASSUMED = "assumed"
_NOT_IN_DATASET = ("public_ids", "patients_assumed")
"""What is known of a dataset and said elsewhere: by the scheme of identifiers, and by `patients`."""


@dataclass(frozen=True)
class Root:
    """All that the root document says. Frozen: each change of a store is a new Root, put whole."""

    recipe: Recipe
    dataset: DatasetInfo
    weights: Mapping[str, str]
    id_scheme: str
    key_id: str
    plan_digest: str
    samples: int
    slices: int
    rows: int
    quantum: int
    selection: str
    passes: Mapping[str, Pass]
    complete: Mapping[str, bool]
    reopened: frozenset[str] = frozenset()
    """Passes that were complete until rows were added or are made anew; the next extraction completes them, asked or not."""

    @property
    def fingerprint(self) -> str:
        """Of the recipe."""
        return fingerprint(self.recipe)

    @property
    def unit(self) -> Unit:
        """What a row is: a slice, or a whole volume."""
        return self.recipe.image.unit

    def reopen(self, names: Iterable[str]) -> "Root":
        """With these passes incomplete; of those that were complete it is remembered."""
        again = frozenset(names)
        return replace(
            self,
            complete={name: whole and name not in again for name, whole in self.complete.items()},
            reopened=self.reopened | frozenset(name for name in again if self.complete[name]),
        )

    def finish(self, name: str) -> "Root":
        """With pass `name` complete."""
        return replace(self, complete={**self.complete, name: True}, reopened=self.reopened - {name})

    def attributes(self) -> dict[str, Any]:
        """The value of the root attribute `embedcache`."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "unit": self.unit,
            "recipe": recipe_document(self.recipe),
            "fingerprint": self.fingerprint,
            "dataset": {k: v for k, v in asdict(self.dataset).items() if k not in _NOT_IN_DATASET},
            **({"patients": ASSUMED} if self.dataset.patients_assumed else {}),
            "weights": dict(self.weights),
            "identifiers": {"scheme": self.id_scheme, "key_id": self.key_id},
            "plan": {
                "digest": self.plan_digest,
                "samples": self.samples,
                "slices": self.slices,
                "rows": self.rows,
                "quantum": self.quantum,
            },
            "selection": self.selection,
            "passes": {
                name: {
                    **describe_pass(p),
                    "complete": self.complete[name],
                    **({"reopened": True} if name in self.reopened else {}),
                    **({"dropped": [list(part) for part in p.dropped]} if p.dropped else {}),
                }
                for name, p in sorted(self.passes.items())
            },
        }

    @classmethod
    def parse(cls, attributes: Mapping[str, Any], store: str) -> "Root":
        """From the root attribute of the store called `store`. Raises StoreError or NewerFormatError."""
        if not isinstance(attributes, Mapping) or attributes.get("format") != FORMAT:
            raise StoreError(f"{store} is no embedcache store: its root has no `{ATTRIBUTE}` attribute of that format.")
        version = attributes.get("version")
        if type(version) is not int or version != VERSION:
            raise NewerFormatError(
                f"{store} has format version {version!r:.40}; this embedcache reads version {VERSION}. "
                "Open it with a newer embedcache."
            )
        try:
            canonical(attributes).encode()  # no NaN, no half of a surrogate pair, no endless nesting
            return cls._parse(attributes)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise StoreError(
                f"the root attributes of {store} are damaged ({type(error).__name__}: {str(error)[:200]})."
            ) from error

    @classmethod
    def _parse(cls, a: Mapping[str, Any]) -> "Root":
        stated = typed(_Stated, {f.name: a[f.name] for f in fields(_Stated)})
        plan, scheme, unit = stated.plan, stated.identifiers.scheme, stated.recipe.image.unit
        if stated.unit != unit or (unit == "volume" and plan.slices != plan.samples):
            raise ValueError(
                f"unit {stated.unit!r} with a recipe of a {unit}, {plan.samples} samples, {plan.slices} rows"
            )
        passes, states = {}, {}
        for name, document in a["passes"].items():
            passes[name] = make_pass({key: document[key] for key in PASS_KEYS})
            states[name] = typed(_PassState, {k: v for k, v in document.items() if k not in PASS_KEYS})
            if passes[name].id != name:
                raise ValueError(f"pass {name} has the content of pass {passes[name].id}")
            passes[name] = replace(passes[name], dropped=states[name].dropped)
            ends = [end for part in states[name].dropped for end in part]
            if ends != sorted(set(ends)) or any(
                not 0 <= end <= plan.rows // passes[name].rows_per_shard for end in ends
            ):
                raise ValueError(f"pass {name} has dropped shards that it never had")
            check_pass(passes[name], plan.quantum, unit)
        paths = [spec.path for p in passes.values() for spec in p.arrays]
        if len(set(paths)) < len(paths):
            raise ValueError("two passes have one array")
        if a.get("patients", ASSUMED) != ASSUMED:
            raise ValueError("patients are neither 'assumed' nor left out")
        assumed = "patients" in a
        dataset = typed(DatasetInfo, a["dataset"], public_ids=scheme == "public", patients_assumed=assumed)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", dataset.name):
            raise ValueError(f"{dataset.name!r} is no name of a dataset")
        root = cls(
            recipe=stated.recipe,
            dataset=dataset,
            weights=stated.weights,
            id_scheme=scheme,
            key_id=stated.identifiers.key_id,
            plan_digest=plan.digest,
            samples=plan.samples,
            slices=plan.slices,
            rows=plan.rows,
            quantum=plan.quantum,
            selection=stated.selection,
            passes=passes,
            complete={name: state.complete for name, state in states.items()},
            reopened=frozenset(name for name, state in states.items() if state.reopened),
        )
        if root.fingerprint != stated.fingerprint:
            raise ValueError("the fingerprint is not the recipe's")
        return root


@dataclass(frozen=True)
class _Identifiers:
    scheme: Literal["public", "pseudonym", "kept"]
    key_id: str


@dataclass(frozen=True)
class _PlanSize:
    digest: str
    samples: int
    slices: int
    rows: int
    quantum: int

    def __post_init__(self) -> None:
        q = self.quantum
        if not 0 < q <= MAX_QUANTUM or q & (q - 1) or self.rows % q or not 0 < self.samples <= self.slices <= self.rows:
            raise ValueError(
                f"impossible plan: {self.samples} samples, {self.slices} slices, {self.rows} rows, quantum {q}"
            )


@dataclass(frozen=True)
class _PassState:
    complete: bool
    reopened: bool = False
    dropped: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class _Stated:
    unit: Unit
    recipe: Recipe
    fingerprint: str
    weights: Mapping[str, str]
    identifiers: _Identifiers
    plan: _PlanSize
    selection: str
