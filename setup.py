"""Which packages the wheel has; the rest is in pyproject.toml."""

from setuptools import find_packages, setup

OURS = ("imgo_site", "accounts", "offline", "push")

setup(
    packages=[
        *find_packages(include=[pattern for name in OURS for pattern in (name, f"{name}.*")]),
        "imgo_site.templates",
    ],
    # The site's templates lie beside the packages in a checkout, and in imgo_site when installed.
    package_dir={"imgo_site.templates": "templates"},
)
