"""What the site has beyond docs/: the README, CONTRIBUTING and CHANGELOG as pages, and every page in the navigation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in PAGES.items():
        content = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=content))
    named = set(_pages(config.nav))
    others = sorted(file.src_uri for file in files.documentation_pages() if file.src_uri not in named)
    config.nav = [{title: others if part == "*" else part for title, part in entry.items()} if isinstance(entry, dict)
                  else entry for entry in config.nav]  # fmt: skip
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to the pages above; the names alone of files that the site does not have."""
    for source, page in PAGES.items():
        markdown = re.sub(rf"\]\((?:\.\./)*{re.escape(source)}", f"]({page}", markdown)
    return re.sub(r"\[([^\]]*)\]\(\.\./(?!api/|how-to/|[\w-]+\.md)[^)]*\)", r"\1", markdown)


def _pages(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    else:
        for inner in part.values() if isinstance(part, dict) else part:
            yield from _pages(inner)
