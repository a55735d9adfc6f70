"""Checks for apps and packages of a project that have the names of imgo's."""

from contextlib import suppress
from functools import lru_cache
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

PACKAGES = ("accounts", "offline", "push")
HERE = Path(__file__).resolve().parent.parent


def check_packages() -> None:
    """Raise `ImproperlyConfigured` if another package has a name of imgo's.

    It is found first, or it was installed into the same directory: pip lets the last one overwrite
    the files of the others.
    """
    for name, owners in _owners().items():
        if len(owners) > 1:
            raise ImproperlyConfigured(
                f"The packages {', '.join(owners)} have all installed a package {name!r} into "
                f"{HERE}, and overwrite each other's files: install imgo into an environment of "
                "its own."
            )
    for name in PACKAGES:
        origin = _place_of(name)
        if origin is not None and origin != HERE / name:
            raise ImproperlyConfigured(
                f"There are two packages named {name!r}: imgo's, in {HERE}, and another one in "
                f"{origin.parent}, which Python finds first. If tables of yours are in use, do not "
                "rename it: see docs/howto/project.md. Otherwise move it into a package of your "
                f"project (project.{name}), with a label of its own."
            )


@lru_cache(maxsize=1)
def _owners() -> dict[str, list[str]]:
    """Return who has installed files of each package where imgo is; nobody has in a checkout."""
    owners: dict[str, list[str]] = {name: [] for name in PACKAGES}
    for distribution in distributions(path=[str(HERE)]):
        lines = (distribution.read_text("RECORD") or "").splitlines()
        for name in {line.partition("/")[0] for line in lines} & owners.keys():
            owners[name].append(distribution.metadata["Name"])
    return owners


def _place_of(name: str) -> Path | None:
    spec = find_spec(name)
    if spec is None:
        return None
    paths = list(spec.submodule_search_locations or []) or [str(spec.origin)]
    return Path(paths[0]).resolve()


class NamedApp(AppConfig):
    """An app of imgo, which refuses another installed app with its label.

    Raises `ImproperlyConfigured`, with the names of both apps; Django's own error names only one.
    """

    default = False  # so that Django uses the subclass in an app's module, not this import
    default_auto_field = "django.db.models.BigAutoField"

    def __init__(self, app_name: str, app_module: Any) -> None:
        super().__init__(app_name, app_module)
        check_packages()
        for entry in settings.INSTALLED_APPS:
            if entry.partition(".")[0] not in PACKAGES and _label_of(entry) == self.label:
                raise ImproperlyConfigured(
                    f"INSTALLED_APPS has {entry!r} and imgo's {self.name!r}, which both have the "
                    f"label {self.label!r}. If tables of yours are in use, do not rename it: see "
                    "docs/howto/project.md. Otherwise give yours another label: "
                    f"label = 'project_{self.label}' in its AppConfig."
                )


def _label_of(entry: str) -> str:
    """Return the label of an entry of INSTALLED_APPS; "" if Django will refuse the entry."""
    with suppress(Exception):
        return AppConfig.create(entry).label
    return ""
