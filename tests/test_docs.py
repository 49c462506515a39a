"""The documentation builds as a site: no warning, no page left out, nothing loaded from elsewhere."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest

import mow
import mow_kernels

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r'(?:href|src)="(?!https?:)([^":#]+)')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("material", "mkdocstrings_handlers"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"the site needs mkdocs-material and mkdocstrings-python: there is no {module}")
    folder = tmp_path_factory.mktemp("site")
    unreachable = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, **unreachable, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0 and "WARNING" not in result.stderr, result.stderr
    return folder


def test_every_page_is_in_the_navigation(site: Path) -> None:
    home = (site / "index.html").read_text()
    pages = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")]
    assert len(pages) > 15 and [str(page) for page in pages if f'href="{page}"' not in home] == []
    for page in ("contributing.html", "changelog.html"):
        assert f'href="{page}"' in home


@pytest.mark.parametrize("package", [mow, mow_kernels], ids=lambda package: package.__name__)
def test_the_reference_has_every_public_name(package: ModuleType) -> None:
    page = (ROOT / "docs" / "api" / f"{package.__name__}.md").read_text()
    listed = set(re.findall(r"^::: .*\.(\w+)$", page, re.MULTILINE))
    assert set(package.__all__) - listed <= {"__version__", "SCALES"}


def test_every_link_within_leads_to_a_file(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    links = {page.parent / link for page in pages for link in LINK.findall(page.read_text())}
    assert len(links) > 50 and [str(link) for link in links if not link.exists()] == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loads = re.compile(
        r"""(?:<(?:script|img|iframe)[^>]*\ssrc|<link[^>]*\shref|@import|url\()[\s="'(]*(?:https?:)?//"""
    )
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert files and [str(file) for file in files if loads.search(file.read_text())] == []


def test_the_search_needs_no_server(site: Path) -> None:
    """From disk the theme takes the index from a script, and our own class the place of a worker; it comes first."""
    assert (site / "search" / "search_index.js").read_text().startswith("var __index = {")
    scripts = re.findall(r'<script src="([^"]+)"', (site / "how-to" / "own-loop.html").read_text())
    assert scripts[0] == "../assets/iframe-worker.js" and "bundle" in scripts[1]
    assert "window.Worker = class" in (site / "assets" / "iframe-worker.js").read_text()


def test_the_page_is_light_or_dark_and_no_code_is_cut_off(site: Path) -> None:
    page = (site / "command-line.html").read_text()
    assert 'href="assets/site.css"' in page and page.count('name="__palette"') == 2
    rules = re.search(r"pre > code \{(.*?)\}", (site / "assets" / "site.css").read_text(), re.DOTALL)
    assert rules and "white-space: pre-wrap" in rules[1] and "overflow-wrap: anywhere" in rules[1]


class Waiting(http.server.SimpleHTTPRequestHandler):
    """Ends a page's load after some seconds, at which the browser prints it: by then the search has answered."""

    def do_GET(self) -> None:
        if self.path.startswith("/wait"):
            time.sleep(8)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.long
@pytest.mark.parametrize("served", [False, True], ids=["disk", "http"])
def test_the_search_finds_in_a_browser(site: Path, tmp_path: Path, served: bool) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("there is no Chromium")
    copy = Path(shutil.copytree(site, tmp_path / "site"))
    page = copy / "index.html"
    page.write_text(page.read_text().replace("</body>", '<img src="wait.png"></body>') if served else page.read_text())
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    options += [] if served else ["--virtual-time-budget=20000"]  # which does not wait for a worker
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Waiting, directory=str(copy))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}" if served else copy.as_uri()
        done = subprocess.run([browser, *options, f"{base}/index.html?q=refresh"], capture_output=True, text=True)
        server.shutdown()
    assert re.search(r'result__meta">\d+ matching documents', done.stdout)
    assert re.search(r"<mark[^>]*>refresh", done.stdout)


def test_the_gallery_has_every_command() -> None:
    cli = pytest.importorskip("mow.app.cli")
    shown = re.findall(r"^## (.*)$", (ROOT / "docs" / "gallery.md").read_text(), re.MULTILINE)
    named = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    assert {word.removeprefix("mow ") for heading in shown for word in heading.split(", ")} == named


def test_the_reference_has_the_docstrings_and_signatures(site: Path) -> None:
    page = re.sub(r"<[^>]*>", "", (site / "api" / "mow_kernels.html").read_text())
    assert "Squared maximum mean discrepancy" in page
    returned = re.findall(r"-(?:&gt;|>)\s*(\w+)", page)
    assert returned.count("Tensor") >= 3 and "Call" not in returned  # which is what the checks of arguments make
