"""The documentation's site: it builds, shows what the code says, and loads nothing from others."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import get_commands
from mkdocs.exceptions import PluginError

from docs import hooks
from imgo_site.conf import known_names
from push.metrics import definitions as metrics
from push.wire import CloseCode

ROOT = Path(__file__).resolve().parent.parent
# What a browser fetches by itself, and where from.
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=[\"']?(?P<src>[^\"'\s>]+)"
    r"|<link\b[^>]*?\bhref=[\"']?(?P<link>[^\"'\s>]+)"
    r"|(?:url\(|@import\s+)[\"']?(?P<css>[^\"')\s]+)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", home],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return home


def read(site: Path, name: str) -> str:
    return (site / "reference" / name).read_text()


def test_reference_has_what_the_code_has(site):
    ours = {name for name, app in get_commands().items() if app == "push"}
    assert {"imgo", "workers", "explain"} <= ours
    page = (site / "commands.html").read_text()
    assert [name for name in ours if f'<h2 id="{name}"' not in page] == []
    page = read(site, "settings.html")
    assert [name for name in known_names() if f"<code>{name}</code>" not in page] == []
    page = read(site, "close-codes.html")
    assert [code for code in CloseCode if f"<td>{int(code)}</td>" not in page] == []
    page = (site / "metrics.html").read_text()
    for name in ("imgo_sessions", "imgo_pushes_total", "imgo_outbox_oldest_seconds"):
        assert f"<code>{name}</code>" in page


def test_reference_has_every_system_check(site):
    page = read(site, "checks.html")
    listed: set[str] = set()
    for kind, first, last in re.findall(r"<code>([EWI])(\d{3})(?:-[EWI](\d{3}))?</code>", page):
        listed |= {f"{kind}{n:03}" for n in range(int(first), int(last or first) + 1)}
    sources = [file.read_text() for file in (ROOT / "push" / "checks").glob("*.py")]
    given = {name for text in sources for name in re.findall(r'"imgo\.([EWI]\d{3})"', text)}
    assert given - listed == set()


def test_metrics_that_the_pages_name_exist():
    # Those of a histogram have more than their name.
    table = re.sub("_(bucket|sum|count)\\b", "", metrics.markdown_table())
    # The names of nginx's upstreams, which the page about deploying says how to change.
    upstreams = re.findall(r"upstream (\w+)", (ROOT / "deploy/nginx.conf").read_text())
    of_the_app = {"imgo_pushes", "imgo_relay", "imgo_status"}  # commands, and a fixture of pytest
    named = {
        (page.name, name)
        for page in (ROOT / "docs").rglob("*.md")
        for name in re.findall(r"\bimgo_[a-z_]+[a-z]\b(?![./*])", page.read_text())
        if name not in {"imgo_client", "imgo_request_id", "imgo_site", *upstreams, *of_the_app}
    }
    assert len(named) > 5
    bare = {(page, re.sub("_(bucket|sum|count)$", "", name)) for page, name in named}
    assert [pair for pair in bare if f"`{pair[1]}`" not in table] == []


def test_every_part_is_put_in_somewhere(site):
    pages = [page.read_text() for page in (ROOT / "docs").rglob("*.md")]
    used = {name for page in pages for name in hooks.MARK.findall(page)}
    assert used == set(hooks.PARTS)
    assert [page for page in site.rglob("*.html") if "from the code:" in page.read_text()] == []


def test_a_part_that_there_is_not_is_an_error_that_tells_which_there_are():
    with pytest.raises(PluginError, match=r"no such part; there are .*figures"):
        hooks.on_page_markdown("<!-- from the code: weather -->")


def test_the_protocols_close_codes_are_those_of_the_code():
    assert hooks.close_codes() in (ROOT / "docs" / "protocol.md").read_text()


def test_nothing_is_loaded_from_other_hosts(site):
    found = [
        (page.name, next(filter(None, match.groups())))
        for suffix in ("html", "css")
        for page in site.rglob(f"*.{suffix}")
        for match in FETCHED.finditer(page.read_text())
    ]
    assert any(name.endswith(".html") for name, _ in found)
    assert [pair for pair in found if re.match(r"([a-z]+:)?//", pair[1])] == []
