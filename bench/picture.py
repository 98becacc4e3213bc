# SPDX-License-Identifier: MulanPSL-2.0
"""The picture: how many times the kernel, per path and load, with the bars that must and should be reached."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from bench.report import Row, bar, ratio_text
from bench.side import BASELINE
from bench.stats import Verdict, figure
from bench.targets import LIFE, PATHS

_WIDTH, _LEFT, _RIGHT = 900, 270, 170
_LINE, _BAR = 20, 12
_LOW, _HIGH = 0.1, 64.0  # of the axis, times the kernel
_COLOURS = {
    Verdict.AIM: "#2e8b57",
    Verdict.MUST: "#e0a526",
    Verdict.MISSED: "#c8442f",
    Verdict.FAILED: "#c8442f",
    Verdict.NONE: "#6b8cae",
}


def _x(value: float) -> float:
    share = math.log(min(max(value, _LOW), _HIGH) / _LOW) / math.log(_HIGH / _LOW)
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _text(x: float, y: float, text: str, anchor: str = "start", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(text)}</text>'


def _line(x: float, top: float, bottom: float, colour: str, width: float = 1) -> str:
    return (
        f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="{colour}" stroke-width="{width:g}"/>'
    )


def _bar(row: Row, y: float) -> list[str]:
    """Draw one row: a bar from 1x, ticks at must and aim, the figure at the right."""
    value = row.speedup if row.path != LIFE else row.score
    parts = [_text(_LEFT - 8, y + _BAR - 2, row.title, "end")]
    if value is None:
        return [*parts, _text(_x(1) + 6, y + _BAR - 2, row.note[:60] or "not measured", "start", 'fill="#c8442f"')]
    begin, end = sorted((_x(1), _x(value)))
    box = f'x="{begin:.1f}" y="{y}" width="{max(end - begin, 1.5):.1f}" height="{_BAR}"'
    parts.append(f'<rect {box} fill="{_COLOURS[row.verdict]}"/>')
    target = row.target
    if target:
        for each, width in ((target.must, 2.0), (target.aim, 1.0)):
            if row.path == LIFE:
                at = each / target.must if target.kind.more_is_better else target.must / each
            elif target.kind.relative:
                at = each if target.kind.more_is_better else 1 / each
            else:
                continue
            parts.append(_line(_x(at), y - 2, y + _BAR + 2, "#222", width))
    assert row.gazelled is not None
    if row.path == LIFE or (target and not target.kind.relative):
        shown = f"{figure(row.gazelled.median, row.unit)}" + (f" (must {bar(target, target.must)})" if target else "")
    else:
        shown = f"{ratio_text(row)}  {figure(row.gazelled.median, row.unit)}"
    parts.append(_text(_WIDTH - _RIGHT + 8, y + _BAR - 2, shown))
    return parts


def _axis(top: float, bottom: float, unit: str) -> list[str]:
    parts = []
    for value in (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64):
        parts.append(_line(_x(value), top, bottom, "#444" if value == 1 else "#ddd"))
        parts.append(_text(_x(value), top - 4, f"{value:g}{unit}", "middle", 'fill="#777" font-size="10"'))
    return parts


def draw(rows: Sequence[Row], machine: dict[str, str]) -> str:
    """Return the picture as SVG."""
    parts: list[str] = []
    y = 58.0
    for path in PATHS:
        own = [row for row in rows if row.path == path]
        if not own:
            continue
        if path == LIFE:
            title, unit = f"{path}: times better than must", ""
        else:
            title, unit = f"{path}: times the kernel at its best placement ({BASELINE[path]})", "x"
        parts.append(_text(12, y, title, "start", 'font-weight="bold" font-size="14"'))
        top = y + 26
        parts += _axis(top, top + len(own) * _LINE, unit)
        for number, row in enumerate(own):
            parts += _bar(row, top + 4 + number * _LINE)
        y = top + len(own) * _LINE + 34
    caption = f"{machine.get('cpu', '')}, Linux {machine.get('kernel', '')}, DPDK {machine.get('dpdk', '')}, "
    caption += f"gazelled {machine.get('gazelled', '')}"
    legend = "green: aim met, yellow: must met, red: missed, blue: no target; thick tick: must, thin: aim; log scale"
    head = [
        _text(12, 20, caption, "start", 'font-size="12"'),
        _text(12, 36, legend, "start", 'font-size="11" fill="#555"'),
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y:.0f}" viewBox="0 0 {_WIDTH} {y:.0f}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{_WIDTH}" height="{y:.0f}" fill="#fff"/>',
            *head,
            *parts,
            "</svg>",
            "",
        ]
    )
