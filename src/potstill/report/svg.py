"""The pictures of a report: SVG by hand, whose colours the page sets, so that they suit a light
screen, a dark one and paper alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from potstill.calibration import Reliability

WIDTH, HEIGHT = 340, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 34
INNER_WIDTH, INNER_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
DASHES = ("", "6 3", "2 3", "9 3 2 3", "4 4", "1 2")  # beside the colours, for who can't tell these
COLOURS = len(DASHES)


@dataclass(frozen=True)
class Line:
    """A curve: its name, and the points (x, y) from left to right."""

    name: str
    points: Sequence[tuple[float, float]]


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str = "epoch",
    references: Sequence[tuple[str, float]] = (),
    marked_x: float | None = None,
) -> Markup:
    """Return a chart of curves.

    Args:
        lines: The curves; they are coloured in this order.
        title: Title of the chart.
        x_label: Name of the horizontal axis.
        references: Names and heights of horizontal dashed lines.
        marked_x: Where a vertical line stands.
    """
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points] + [y for _, y in references]
    ticks_y = nice_ticks(min(ys), max(ys))
    ticks_x = [t for t in nice_ticks(min(xs), max(xs)) if t == int(t)]
    low_x, high_x = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1
    low_y, high_y = ticks_y[0], ticks_y[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + INNER_WIDTH * (x - low_x) / (high_x - low_x)
        return across, TOP + INNER_HEIGHT * (1 - (y - low_y) / (high_y - low_y))

    parts = [_grid(place, ticks_x, ticks_y, low_x, high_x, x_label)]
    for name, y in references:
        (x1, height), (x2, _) = place(low_x, y), place(high_x, y)
        parts.append(
            f'<line class="reference" x1="{x1:.1f}" x2="{x2:.1f}" y1="{height:.1f}" '
            f'y2="{height:.1f}"><title>{escape(name)}</title></line>'
        )
    if marked_x is not None:
        across, _ = place(marked_x, low_y)
        parts.append(
            f'<line class="marked" x1="{across:.1f}" x2="{across:.1f}" y1="{TOP}" '
            f'y2="{TOP + INNER_HEIGHT}"><title>epoch chosen</title></line>'
        )
    for i, line in enumerate(lines):
        placed = [place(x, y) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        dash = f' stroke-dasharray="{DASHES[i % COLOURS]}"' if DASHES[i % COLOURS] else ""
        parts.append(f'<polyline class="s{i % COLOURS}" points="{path}"{dash}/>')
        if len(placed) <= 30:
            parts += [
                f'<circle class="s{i % COLOURS}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"><title>'
                f"{escape(line.name)}, {x_label} {point[0]:g}: {point[1]:.4g}</title></circle>"
                for (x, y), point in zip(placed, line.points, strict=True)
            ]
    return _svg(title, parts)


def reliability_chart(bins: Reliability, *, title: str) -> Markup:
    """Return a reliability diagram: the accuracy of each bin of confidence, beside the diagonal."""

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + INNER_WIDTH * x, TOP + INNER_HEIGHT * (1 - y)

    ticks = [0, 0.25, 0.5, 0.75, 1.0]
    parts = [_grid(place, ticks, ticks, 0, 1, "confidence")]
    width = INNER_WIDTH / len(bins.counts)
    values = zip(bins.counts.tolist(), bins.confidence, bins.accuracy, strict=True)
    for i, (count, confidence, accuracy) in enumerate(values):
        if not count:
            continue
        x, top = place(i / len(bins.counts), accuracy)
        parts.append(
            f'<rect class="bar" x="{x + 1:.1f}" y="{top:.1f}" width="{width - 2:.1f}" '
            f'height="{max(TOP + INNER_HEIGHT - top, 1):.1f}"><title>{count} sentences, '
            f"confidence {confidence:.3f}, accuracy {accuracy:.3f}</title></rect>"
        )
    (x1, y1), (x2, y2) = place(0, 0), place(1, 1)
    parts.append(f'<line class="reference" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    return _svg(title, parts)


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return about `wanted` round numbers that enclose `low` and `high`."""
    if not high > low:
        low, high = low - 0.5, high + 0.5
    step = 10.0 ** len(str(int(high - low)))
    sizes = [s * step * 10.0**-k for k in range(12) for s in (1.0, 0.5, 0.2)]
    step = next((s for s in sizes if (high - low) / s >= wanted - 1), sizes[-1])
    first, last = int(low // step), -int(-high // step)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _grid(
    place: object,
    ticks_x: Sequence[float],
    ticks_y: Sequence[float],
    low_x: float,
    high_x: float,
    x_label: str,
) -> str:
    assert callable(place)
    parts = []
    for tick in ticks_y:
        x, y = place(low_x, tick)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for tick in ticks_x:
        if low_x <= tick <= high_x:
            x, _ = place(tick, ticks_y[0])
            parts.append(
                f'<text x="{x:.1f}" y="{TOP + INNER_HEIGHT + 15}" text-anchor="middle">'
                f"{tick:g}</text>"
            )
    parts.append(
        f'<text x="{LEFT + INNER_WIDTH / 2}" y="{HEIGHT - 3}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    return "".join(parts)


def _svg(title: str, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg role="img" viewBox="0 0 {WIDTH} {HEIGHT}" aria-label="{escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )
