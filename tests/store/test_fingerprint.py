from dataclasses import replace

from embedcache.store.fingerprint import LATER_FIELDS, fingerprint, recipe_document
from embedcache.testing.stores import make_recipe


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
