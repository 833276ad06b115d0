"""Tables of HTML, as which results show in a notebook."""

from collections.abc import Sequence
from html import escape
from typing import Any


def html_table(header: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> str:
    """Return a table whose first column is on the left and whose others are on the right; nothing
    in it is markup."""
    head = f"<caption>{escape(caption)}</caption>" if caption else ""
    body = "".join(_row("td", row) for row in rows)
    return f"<table>{head}<thead>{_row('th', header)}</thead><tbody>{body}</tbody></table>"


def _row(tag: str, cells: Sequence[object]) -> str:
    sides = ["left", *["right"] * (len(cells) - 1)]
    return (
        "<tr>"
        + "".join(
            f'<{tag} style="text-align: {side}">{escape(str(cell))}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        )
        + "</tr>"
    )


def scores_table(scores: dict[str, dict[str, Any]]) -> str:
    """Return the scores of each split beside the majority class, as `evaluate` gives them."""
    header = ("", "sentences", "accuracy", "majority class", "MCC [95 %]")
    rows = [
        (
            name,
            f"{row['sentences']:,}",
            f"{100 * row['accuracy']:.2f} %",
            f"{100 * row['majority']:.2f} %",
            f"{row['mcc']:.3f} [{row['mcc_95'][0]:.3f}, {row['mcc_95'][1]:.3f}]",
        )
        for name, row in scores.items()
    ]
    return html_table(header, rows)
