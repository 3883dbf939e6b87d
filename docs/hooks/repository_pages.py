"""A hook of mkdocs: files of the repository that lie outside docs/ become pages, and relative links follow them there.

So a Markdown file has one text with links that work both in the repository and on the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "bundles/ciar/bundles/icons/README.md": "model-card.md",
    "bundles/ciar/bundles/icons/samples.png": "samples.png",
    "LICENSE": "LICENSE.txt",
}
"""Path in the repository -> path on the site. What is in docs/ keeps its path there."""

SOURCES = {page: source for source, page in PAGES.items()}
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)#\s]+)(?=[)#])")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages, and what they show."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(REPOSITORY / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Relative links, seen from where the text lies in the repository, become links from its page."""
    name = page.file.src_uri
    return rewritten(markdown, SOURCES.get(name, f"docs/{name}"), name)


def rewritten(markdown: str, source: str, name: str) -> str:
    """markdown: of file `source` of the repository, page `name`. A link to nowhere stays, for mkdocs to see."""

    def follow(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
        page = PAGES.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        return posixpath.relpath(page, posixpath.dirname(name) or ".") if page else link[1]

    return LINK.sub(follow, markdown)
