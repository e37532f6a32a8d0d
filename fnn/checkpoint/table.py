"""Tables in messages and on the terminal."""

from collections.abc import Sequence

ROWS = 20


def show_table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, limit: int | None = None) -> str:
    """Aligned columns under titles; ``limit`` cuts them short and says by how many."""
    shown = [[plain(cell) for cell in row] for row in (rows if limit is None else rows[:limit])]
    widths = [max(len(row[column]) for row in [titles, *shown]) for column in range(len(titles))]
    line = lambda row: "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
    lines = [line(titles), *map(line, shown)]
    if len(shown) < len(rows):
        lines.append(f"... and {len(rows) - len(shown)} more")
    return "\n".join(f"  {line}" for line in lines)


def plain(text: str) -> str:
    """Text from a file, for a terminal: what cannot be printed, or would command it, is escaped."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
