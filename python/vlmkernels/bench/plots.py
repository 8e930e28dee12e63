"""Small line and scatter charts as inline SVG. Colours are classes that the page's style sheet defines, so a chart follows its light and dark themes."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Chart", "Series"]

_WIDTH, _HEIGHT = 400.0, 260.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 14.0, 12.0, 40.0


@dataclass(frozen=True)
class Series:
    """Points of one colour; `line` joins them, `dots` marks them. `label` goes into the legend, "" keeps it out."""

    label: str
    points: list[tuple[float, float]]
    colour: int = 0
    line: bool = True
    dots: bool = True
    dashed: bool = False
    names: list[str] = field(default_factory=list)  # of the points, shown when the pointer rests on them


@dataclass(frozen=True)
class Chart:
    """Axes are logarithmic in base 2 (sizes) or 10, or linear from 0."""

    title: str
    x_label: str
    y_label: str
    series: list[Series]
    x_log: int = 0
    y_log: int = 0

    def to_html(self) -> str:
        """A figure, or nothing where there are no points."""
        points = [point for series in self.series for point in series.points]
        if not points:
            return ""
        x = _Axis([p[0] for p in points], self.x_log, _LEFT, _WIDTH - _RIGHT)
        y = _Axis([p[1] for p in points], self.y_log, _HEIGHT - _BOTTOM, _TOP)
        parts = [self._grid(x, y), *(self._draw(series, x, y) for series in self.series)]
        legend = "".join(
            f'<span><i class="k{s.colour}{" dash" if s.dashed else ""}"></i>{html.escape(s.label)}</span>'
            for s in self.series
            if s.label
        )
        title = html.escape(self.title)
        return (
            f'<figure><figcaption>{title}</figcaption><svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-label="{title}">'
            + "".join(parts)
            + f'</svg><div class="legend">{legend}</div></figure>'
        )

    def _grid(self, x: _Axis, y: _Axis) -> str:
        bottom, middle = _HEIGHT - _BOTTOM, (_TOP + _HEIGHT - _BOTTOM) / 2
        parts = []
        for value in x.ticks():
            at = x.at(value)
            parts.append(f'<line class="grid" x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{bottom}"/>')
            parts.append(f'<text x="{at:.1f}" y="{bottom + 14}" text-anchor="middle">{_tick(value)}</text>')
        for value in y.ticks():
            at = y.at(value)
            parts.append(f'<line class="grid" x1="{_LEFT}" y1="{at:.1f}" x2="{_WIDTH - _RIGHT}" y2="{at:.1f}"/>')
            parts.append(f'<text x="{_LEFT - 5}" y="{at + 3:.1f}" text-anchor="end">{_tick(value)}</text>')
        centre = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(f'<text class="label" x="{centre:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{html.escape(self.x_label)}</text>')  # fmt: skip
        parts.append(f'<text class="label" transform="translate(12 {middle:.1f}) rotate(-90)" text-anchor="middle">{html.escape(self.y_label)}</text>')  # fmt: skip
        return "".join(parts)

    @staticmethod
    def _draw(series: Series, x: _Axis, y: _Axis) -> str:
        at = [(x.at(px), y.at(py)) for px, py in series.points]
        out = ""
        if series.line and len(at) > 1:
            path = " ".join(f"{px:.1f},{py:.1f}" for px, py in at)
            out += f'<polyline class="l{series.colour}{" dash" if series.dashed else ""}" points="{path}"/>'
        if series.dots:
            names = series.names or [series.label] * len(at)
            for (px, py), name, (vx, vy) in zip(at, names, series.points, strict=True):
                out += (
                    f'<circle class="d{series.colour}" cx="{px:.1f}" cy="{py:.1f}" r="3">'
                    f"<title>{html.escape(name)}: {vx:.4g}, {vy:.4g}</title></circle>"
                )
        return out


class _Axis:
    def __init__(self, values: list[float], base: int, start: float, end: float) -> None:
        self.base, self.start, self.end = base, start, end
        if base:
            shown = [v for v in values if v > 0] or [1.0]
            low, high = math.log(min(shown), base), math.log(max(shown), base)
            margin = max(0.04 * (high - low), 0.1)
            self.low, self.high = low - margin, high + margin
        else:
            self.low, self.high = 0.0, (max(values) or 1.0) * 1.06

    def at(self, value: float) -> float:
        scaled = math.log(max(value, 1e-30), self.base) if self.base else value
        share = min(max((scaled - self.low) / (self.high - self.low), 0.0), 1.0)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        if not self.base:
            step = _round_step(self.high / 5)
            return [i * step for i in range(int(self.high / step) + 1)]
        first, last = math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9)
        stride = max(1, (last - first) // 6)
        powers = [float(self.base**e) for e in range(first, last + 1, stride)]
        if len(powers) >= 2 or self.base == 2:
            return powers
        inside: Callable[[float], bool] = lambda v: self.low <= math.log(v, self.base) <= self.high  # noqa: E731
        return [m * 10.0**e for e in range(first - 1, last + 1) for m in (1, 2, 5) if inside(m * 10.0**e)]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)


def _tick(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    if value >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:.4g}"
