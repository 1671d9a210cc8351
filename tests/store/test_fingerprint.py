from dataclasses import replace

from embedcache.store.fingerprint import LATER_FIELDS, fingerprint, recipe_document
from embedcache.store.layout import MAX_SHARD_BYTES, choose_rows_per_shard
from embedcache.testing.stores import make_recipe
from embedcache.types import ArraySpec


def test_a_later_field_changes_no_fingerprint_where_it_has_its_default() -> None:
    recipe = make_recipe()
    document = recipe_document(recipe)
    for part, fields in LATER_FIELDS.items():
        assert not set(fields) & set(document[part])
        for name, default in fields.items():
            assert getattr(getattr(recipe, part), name) == default
    later = replace(recipe, image=replace(recipe.image, time=3))
    assert recipe_document(later)["image"]["time"] == 3
    assert fingerprint(later) != fingerprint(recipe)


def test_shards_hold_what_a_quarter_of_a_gigabyte_does_and_a_row_at_least() -> None:
    def rows(width: int, quantum: int = 512) -> int:
        return choose_rows_per_shard((ArraySpec(1, "patch_tokens", "float16", (width,)),), quantum)

    assert rows(2) == 512
    assert rows(MAX_SHARD_BYTES // 2 // 64) == 64
    assert rows(MAX_SHARD_BYTES // 2 // 64 + 1) == 32
    assert rows(MAX_SHARD_BYTES) == 1
