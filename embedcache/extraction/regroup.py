"""Stores whose samples belong to other patients than they did: a column of patients was named late, or was mended."""

from dataclasses import replace
from pathlib import Path

from embedcache.errors import EmbedcacheError, InputError
from embedcache.extraction.prepare import Prepared
from embedcache.extraction.sources import Tell
from embedcache.store import layout
from embedcache.store.index import StoredIndex
from embedcache.store.locks import exclusive
from embedcache.store.root import Root
from embedcache.store.texts import locate
from embedcache.store.writer import StoreFiles, load, regroup
from embedcache.types import StringArray


def regroup_patients(prepared: Prepared, tell: Tell) -> bool:
    """Give the samples of every store of the dataset the patients that they have now: their tokens stay, splits change.

    Each store remembers whether its patients are assumed. Returns whether a store changed. Raises InputError where each sample
    would become a patient of its own that shared one before: no column of patients was named this time.
    """
    changed = False
    for path in sorted(prepared.folder.glob("*/*.zarr")):
        if not (path / layout.ROOT_DOCUMENT).exists():
            continue
        files, name = StoreFiles(path), f"{path.parent.name}/{path.name}"
        try:
            root, index = load(files)
        except EmbedcacheError as error:  # it may be none of those that were asked for
            tell(f"{name} could not be read, so its patients stay as they are: {error}")
            continue
        if not _differs(prepared, path, root, index):
            continue
        with exclusive(files.leases, f"store {name}", wait=True, notify=tell) as lock:
            root, index = load(files)
            if not _differs(prepared, path, root, index):  # another process has done it already
                continue
            now, before = _patients_now(prepared, index), index.plan.patient_id
            if moved := int((now != before).sum()):
                _check_groups(name, prepared, now, before)
                tell(
                    f"{name}: {moved} samples belong to other patients than when they were extracted; its patients follow"
                )
            regroup(replace(files, fence=lock.check), root, index, now, _assumed_now(prepared, path, root, index))
            changed = True
    return changed


def _differs(prepared: Prepared, path: Path, root: Root, index: StoredIndex) -> bool:
    return bool(
        (_patients_now(prepared, index) != index.plan.patient_id).any()
        or _assumed_now(prepared, path, root, index) != root.dataset.patients_assumed
    )


def _assumed_now(prepared: Prepared, path: Path, root: Root, index: StoredIndex) -> bool:
    """Whether patients in the store are assumed, once it has what this run asks of it.

    They are named again where the dataset names those of all current samples, and assumed where it names none of some that the
    store has or gets.
    """
    asked = locate(index.plan.sample_id[~index.superseded], prepared.samples.id) >= 0
    if prepared.dataset.patients_assumed:
        grows = any(path.resolve() == store.files.path.resolve() for store in prepared.stores)
        return root.dataset.patients_assumed or grows or bool(asked.any())
    return root.dataset.patients_assumed and not asked.all()


def _patients_now(prepared: Prepared, index: StoredIndex) -> StringArray:
    """(samples of the store,): the patient that the dataset names, or the stored one of a sample that is not asked for."""
    place = locate(index.plan.sample_id, prepared.samples.id)
    patients: StringArray = index.plan.patient_id.copy()
    patients[place >= 0] = prepared.samples.patient_id[place[place >= 0]]
    return patients


def _check_groups(name: str, prepared: Prepared, now: StringArray, before: StringArray) -> None:
    asked = prepared.samples
    own = len(asked) > 1 and len(set(asked.patient_id.tolist())) == len(asked)
    if own and len(set(now.tolist())) > len(set(before.tolist())):
        raise InputError(
            f"store {name} knows {len(set(before.tolist()))} patients, and this run makes each of {len(asked)} samples one "
            "of its own; name the column of patients as before (--patient-column), or use another --cache."
        )
