# SPDX-License-Identifier: MulanPSL-2.0
"""From cells to rows: what is compared with what, how it is printed, and how it is written for other programs."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.limits import MANNERS
from bench.programs import Load
from bench.runner import OTHERS_MAX, Cells, Limits
from bench.side import BASELINE, OTHER
from bench.stats import WORSE_BY, Cell, Kind, Target, Verdict, achieved, best_of, figure, is_worse, judge, reference_of
from bench.targets import PATHS, TAP, TARGETS

JSON_VERSION = 1
_STYLES = {Verdict.AIM: "green", Verdict.MUST: "yellow", Verdict.MISSED: "bold red", Verdict.FAILED: "bold red"}


@dataclass(frozen=True)
class Row:
    """One line of the report: a load on a path, the kernel's best and gazelled's."""

    path: str
    key: str
    title: str
    unit: str
    more_is_better: bool
    kernel: Cell | None
    gazelled: Cell | None
    cpu_unit: str = ""  # what the CPU seconds are stated per
    note: str = ""
    other: Cell | None = None  # another checkout's, in a comparison
    all: tuple[Cell, ...] = ()  # every placement of every side

    @property
    def target(self) -> Target | None:
        """Return its bar."""
        return TARGETS.get((self.path, self.key))

    @property
    def verdict(self) -> Verdict:
        """Return how it stands."""
        return judge(self.target, self.kernel, self.gazelled)

    @property
    def ratio(self) -> float | None:
        """Return gazelled / kernel; None if one was not measured."""
        if not (self.kernel and self.gazelled and self.kernel.samples and self.gazelled.samples):
            return None
        return self.gazelled.median / self.kernel.median if self.kernel.median else None

    @property
    def speedup(self) -> float | None:
        """Return how many times better than the kernel it is, whatever better means."""
        return self.ratio if self.more_is_better or not self.ratio else 1 / self.ratio

    @property
    def against_other(self) -> float | None:
        """Return how many times better than the other checkout it is, whatever better means."""
        if not (self.other and self.gazelled and self.other.samples and self.gazelled.samples):
            return None
        ours, theirs = self.gazelled.median, self.other.median
        better, worse = (ours, theirs) if self.more_is_better else (theirs, ours)
        return better / worse if worse else None

    @property
    def worse(self) -> bool:
        """Tell whether it is worse than the other checkout, by more than chance explains."""
        return is_worse(self.gazelled, self.other, self.more_is_better)

    @property
    def score(self) -> float | None:
        """Return how many times its `must` it reaches: 1 is the bar."""
        target = self.target
        reached = achieved(target, self.kernel, self.gazelled) if target else None
        if target is None or reached is None:
            return None
        if target.kind.more_is_better:
            return reached / target.must
        return target.must / reached if reached > 0 else 1000.0


def _limit_note(limit: Mapping[str, Sequence[float]], kernel: Cell | None) -> str:
    """Say what a server that costs nothing would reach, and what multiple of the kernel's figure that is."""
    base = kernel.median if kernel and kernel.samples else None
    medians = {manner: statistics.median(values) for manner, values in limit.items()}
    words = [
        f"{figure(value)}{f' ({value / base:.2f}x)' if base else ''} {MANNERS[manner]}"
        for manner, value in medians.items()
    ]
    return f"limit: the same client and a server on a tap that costs nothing: {', '.join(words)}" if words else ""


def rows_of(
    loads: Sequence[Load], cells: Cells, notes: dict[tuple[str, str], str], limits: Limits, paths: Sequence[str]
) -> list[Row]:
    """Return the rows of the programs' loads, path by path. The kernel's side is taken at its best placement."""
    rows = []
    for path, base in BASELINE.items():
        for load in loads if path in paths else []:
            ours, theirs = cells.get((load.key, path), []), cells.get((load.key, base), [])
            if not ours:
                continue
            gazelled = best_of(ours, load.more_is_better) or ours[0]
            kernel = reference_of(theirs, TARGETS.get((path, load.key)), load.more_is_better)
            note = notes.get((load.key, path), "") or gazelled.failure or (kernel.failure if kernel else "")
            if any((cell.extra("others") or 0) > OTHERS_MAX for cell in (kernel, gazelled) if cell):
                note = (
                    note or f"others took more than {OTHERS_MAX:.0%} of the machine meanwhile: measure again in quiet"
                )
            if path == TAP:
                note = "; ".join(filter(None, (note, _limit_note(limits.get(load.key, {}), kernel))))
            others = cells.get((load.key, OTHER[path]), [])
            rows.append(
                Row(path, load.key, load.title, load.unit, load.more_is_better, kernel, gazelled, load.work_name, note,
                    best_of(others, load.more_is_better), (*theirs, *others, *ours))
            )  # fmt: skip
    return rows


def measured(cell: Cell | None) -> str:
    """Return median and spread."""
    if cell is None:
        return ""
    if not cell.samples:
        return "-"
    return figure(cell.median) + (f" ±{cell.spread:.0%}" if len(cell.samples) > 1 else "")


def bar(target: Target, value: float) -> str:
    """Return must or aim as the target table writes it."""
    match target.kind:
        case Kind.RATIO:
            return f"{value:g}x"
        case Kind.FRACTION:
            return f"1/{1 / value:g}" if value < 1 else f"{value:g}x"
        case Kind.AT_LEAST:
            return f">= {value:g}"
        case Kind.AT_MOST:
            return f"<= {value:g}"


def ratio_text(row: Row) -> str:
    """Return the ratio, as a fraction where less is better."""
    if row.ratio is None:
        return ""
    if row.more_is_better or row.ratio >= 1:
        return f"{row.ratio:.2f}x"
    return f"1/{1 / row.ratio:.1f}" if row.ratio else "0"


def _placement(cell: Cell | None) -> str:
    return cell.placement if cell and cell.samples else ""


def _cpu(cell: Cell | None) -> str:
    return figure(cell.cpu) if cell and cell.cpu is not None else ""


def show(console: Console, rows: Sequence[Row]) -> None:
    """Print a table per path, and what remarks there are below it."""
    for path in PATHS:
        own = [row for row in rows if row.path == path]
        if not own:
            continue
        base = BASELINE.get(path, "kernel")
        table = Table(title=f"{path}, against {base}", box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
        for name in (
            "",
            "unit",
            "kernel",
            "on",
            "CPU s",
            "gazelled",
            "on",
            "CPU s",
            "CPU per",
            "ratio",
            "must",
            "aim",
            "",
        ):
            right = name in ("kernel", "gazelled", "CPU s", "ratio", "must", "aim")
            table.add_column(name, justify="right" if right else "left", no_wrap=True)
        for row in own:
            target, verdict = row.target, row.verdict
            table.add_row(
                row.title, row.unit,
                measured(row.kernel), _placement(row.kernel), _cpu(row.kernel),
                measured(row.gazelled), _placement(row.gazelled), _cpu(row.gazelled), row.cpu_unit, ratio_text(row),
                bar(target, target.must) if target else "", bar(target, target.aim) if target else "",
                verdict.value if target else "", style=_STYLES.get(verdict, ""),
            )  # fmt: skip
        console.print(table)
        remarks: dict[str, list[str]] = {}
        for row in own:
            if row.note:
                remarks.setdefault(row.note, []).append(row.title)
        for remark, titles in remarks.items():
            whose = titles[0] if len(titles) == 1 else f"{len(titles)} rows"
            console.print(f"  {whose}: {remark}", highlight=False, soft_wrap=True)


def show_comparison(console: Console, rows: Sequence[Row]) -> None:
    """Print what became of each row since the other checkout."""
    table = Table(title="this checkout, against the other", box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name in ("", "", "unit", "kernel", "other", "on", "this", "on", "this/other", ""):
        table.add_column(
            name, justify="right" if name in ("kernel", "other", "this", "this/other") else "left", no_wrap=True
        )
    compared = [row for row in rows if row.against_other is not None]
    for row in compared:
        table.add_row(
            row.path, row.title, row.unit, measured(row.kernel), measured(row.other), _placement(row.other),
            measured(row.gazelled), _placement(row.gazelled), f"{row.against_other:.3f}", "WORSE" if row.worse else "",
            style="bold red" if row.worse else "",
        )  # fmt: skip
    console.print(table)
    worse = [f"{row.path}: {row.title}" for row in compared if row.worse]
    text = f"{len(compared)} rows compared, {len(worse)} worse by more than {WORSE_BY:.0%} and beyond the spread"
    console.print(text + (f": {'; '.join(worse)}" if worse else ""), highlight=False, soft_wrap=True)


def summary(rows: Sequence[Row]) -> str:
    """Return the closing line."""
    count = Counter(row.verdict for row in rows if row.target)
    total = sum(count.values())
    if not total:
        return "no row with a target was measured"
    below = [f"{row.path}: {row.title}" for row in rows if row.verdict in (Verdict.MISSED, Verdict.FAILED)]
    text = f"targets: {total} measured, {count[Verdict.AIM]} at their aim, {count[Verdict.MUST]} at their must"
    return text + (f", {len(below)} below: {'; '.join(below)}" if below else "")


def as_json(
    rows: Sequence[Row], machine: dict[str, str], options: dict[str, Any], pinning: dict[str, str]
) -> dict[str, Any]:
    """Return all that was measured, every single sample."""
    return {
        "version": JSON_VERSION,
        "machine": machine,
        "options": options,
        "pinning": pinning,
        "rows": [_row_json(row) for row in rows],
    }


def _row_json(row: Row) -> dict[str, Any]:
    target = row.target
    return {
        "path": row.path,
        "key": row.key,
        "title": row.title,
        "unit": row.unit,
        "more_is_better": row.more_is_better,
        "cpu_seconds_per": row.cpu_unit,
        "kernel": _cell_json(row.kernel),
        "gazelled": _cell_json(row.gazelled),
        "other": _cell_json(row.other),
        "placements": [_cell_json(cell) for cell in row.all],
        "ratio": row.ratio,
        "target": {**asdict(target), "kind": target.kind.value} if target else None,
        "verdict": row.verdict.value,
        "note": row.note,
    }


def _cell_json(cell: Cell | None) -> dict[str, Any] | None:
    if cell is None:
        return None
    known = {"median": cell.median, "low": cell.low, "high": cell.high, "cpu_seconds": cell.cpu} if cell.samples else {}
    return {
        "side": cell.side,
        "placement": cell.placement,
        **known,
        "samples": [asdict(sample) for sample in cell.samples],
        "failure": cell.failure,
    }
