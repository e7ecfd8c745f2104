"""A picture of which attention heads are similar (Greedy Output Approximation, Figure 3)."""

from __future__ import annotations

from math import cos, pi, sin
from pathlib import Path

import numpy as np

from gramian.solvers.units.redundancy import similarity_groups

__all__ = ["draw_heads"]

RADIUS, MARGIN, DOT = 160, 40, 13  # pixels


def draw_heads(distances: np.ndarray, path: str | Path, *, tau: float = 0.2) -> Path:
    """Write an SVG with the heads of one module on a circle and a line wherever D_ij < tau, and return its path.

    Groups of similar heads stand side by side in one colour, and a line is the thicker the nearer its heads are. distances:
    one module's `head_distances`, D (heads, heads)."""
    groups = similarity_groups(distances, tau)
    order = [head for group in sorted(groups, key=len, reverse=True) for head in group]
    middle = RADIUS + MARGIN
    turns = {head: 2 * pi * place / len(order) for place, head in enumerate(order)}
    spots = {head: (middle + RADIUS * sin(turn), middle - RADIUS * cos(turn)) for head, turn in turns.items()}
    several = [group for group in groups if len(group) > 1]
    colours = {head: f"hsl({360 * place // len(several)} 60% 75%)" for place, group in enumerate(several) for head in group}
    size = 2 * middle
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" font-family="sans-serif" font-size="11">']
    lines.append(f"<title>{len(order)} heads, lines where the distance is below {tau:g}</title>")
    for one, other in zip(*np.nonzero(np.triu(np.asarray(distances) < tau, 1))):
        (x1, y1), (x2, y2) = spots[int(one)], spots[int(other)]
        width = 0.5 + 3 * (1 - float(distances[one, other]) / tau)
        lines.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#555" stroke-width="{width:.2f}"/>'
        )
    for head, (x, y) in spots.items():
        colour = colours.get(head, "#ddd")
        lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{DOT}" fill="{colour}" stroke="#333"/>')
        lines.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" dominant-baseline="central">{head}</text>')
    out = Path(path)
    out.write_text("\n".join([*lines, "</svg>", ""]), encoding="utf-8")
    return out
