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
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#:]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in PAGES.items():
        content = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_relinked(content, ROOT).replace("](docs/", "](")))
    named = set(_pages(config.nav))
    others = sorted(file.src_uri for file in files.documentation_pages() if file.src_uri not in named)
    for entry in config.nav:
        if isinstance(entry, dict):
            entry.update({title: others for title, part in entry.items() if part == "*"})
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    return markdown if page.file.src_uri in PAGES.values() else _relinked(markdown, Path(page.file.abs_src_path).parent)


def _relinked(markdown: str, folder: Path) -> str:
    """Links to the pages above, and the text alone of links to files that the site does not have."""

    def relinked(link: re.Match[str]) -> str:
        text, target, anchor = link.groups()
        path = (folder / target).resolve()
        if path.parent == ROOT and path.name in PAGES:
            up = "../" * len(folder.relative_to(ROOT).parts[1:])
            return f"[{text}]({up}{PAGES[path.name]}{anchor or ''})"
        return link[0] if path.is_relative_to(ROOT / "docs") or path.name in PAGES.values() else text

    return LINK.sub(relinked, markdown)


def _pages(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    else:
        for inner in part.values() if isinstance(part, dict) else part:
            yield from _pages(inner)
