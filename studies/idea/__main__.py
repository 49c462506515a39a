"""Behind docs/idea.md: python -m studies.idea draws both figures."""

from __future__ import annotations

from benchmarks import command, page
from studies.idea import figures


def main() -> None:
    drawn = {"window": figures.window(), "gradient": figures.gradient()}
    command.wrote(*(figures.write(figure, page.DOCS / "images" / f"idea-{name}.svg") for name, figure in drawn.items()))


if __name__ == "__main__":
    main()
