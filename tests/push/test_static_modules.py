"""The client's modules with hashed names: what one imports must be there, by the name it uses."""

import re
from pathlib import Path

import pytest
from django.contrib.staticfiles.storage import ManifestStaticFilesStorage
from django.core.files.base import ContentFile

SOURCE = Path(__file__).parents[2] / "push" / "static" / "push"
IMPORT = re.compile(r"""import(?:\(| .* from )["']\./([^"']+)["']""")


class Rewriting(ManifestStaticFilesStorage):
    """Storage that puts hashed names into imports, as a project may choose."""

    support_js_module_import_aggregation = True


@pytest.mark.parametrize("kind", [ManifestStaticFilesStorage, Rewriting])
def test_modules_of_the_client_with_hashed_names_find_one_another(
    tmp_path: Path, kind: type[ManifestStaticFilesStorage]
) -> None:
    storage = kind(location=str(tmp_path), base_url="/static/")
    names = [path.name for path in SOURCE.glob("*.js")]
    for name in names:
        storage.save(name, ContentFile((SOURCE / name).read_bytes()))
    results = list(storage.post_process({name: (storage, name) for name in names}))
    assert [outcome for *_, outcome in results if isinstance(outcome, Exception)] == []
    imported = {
        name: IMPORT.findall((tmp_path / storage.stored_name(name)).read_text()) for name in names
    }
    assert len(imported["imgo-ways.js"]) == 3
    for found in imported.values():
        assert [name for name in found if not (tmp_path / name).is_file()] == []
    is_hashed = "imgo-ways.js" not in imported["imgo.js"]
    assert is_hashed is kind.support_js_module_import_aggregation
