# SPDX-License-Identifier: MulanPSL-2.0
"""`python -m bench`: the command line, and the order of a run."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from kit.lab import REPOSITORY
from rich.console import Console

from bench import report
from bench.instance import Instance, on_tap, on_uplink, on_veth
from bench.lab import BenchError, Lab
from bench.life_rows import LIFE_KEYS, LifeRun
from bench.machine import describe
from bench.picture import draw
from bench.programs import PROGRAMS, Load
from bench.runner import CLOSE, CLOSE_TIMES, Options, Runner
from bench.scale import raise_file_limit
from bench.side import PLACEMENTS, open_field
from bench.targets import AF_XDP, BESIDE, LIFE, PATHS, SAME_HOST, TAP, TARGETS, UPLINK

PICTURE = REPOSITORY / "docs" / "benchmarks.svg"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description="kernel and gazelled side by side; docs/reference/benchmarks.md"
    )
    parser.add_argument("--repeat", "--rounds", type=int, metavar="N", help="runs of every figure (5; with --quick 2)")
    parser.add_argument("--quick", action="store_true", help="fewer, shorter runs: a look, not a measurement")
    parser.add_argument("--only", default="", metavar="A,B", help="programs, loads or life measurements; see --list")
    parser.add_argument("--paths", default="", metavar="A,B", help=f"of: {', '.join(PATHS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single sample")
    parser.add_argument(
        "--svg", type=Path, metavar="FILE", help=f"write the picture (a whole run: {PICTURE.name} in docs/)"
    )
    parser.add_argument(
        "--against", type=Path, metavar="DIR", help="another checkout, built: kernel, that one and this one in turns"
    )
    parser.add_argument("--list", action="store_true", help="list what can be measured, with its bars, and stop")
    return parser.parse_args()


def _list(console: Console) -> None:
    loads = {load.key: (program.name, load.title) for program in PROGRAMS for load in program().loads()}
    loads |= {key: ("life", title) for key, title in LIFE_KEYS.items()}
    for key, (program, title) in loads.items():
        bars = [
            f"{path} {report.bar(target, target.must)} (aim {report.bar(target, target.aim)})"
            for (path, each), target in TARGETS.items() if each == key
        ]  # fmt: skip
        console.print(f"{program:<10} {key:<24} {title:<34} {'; '.join(bars)}", highlight=False, soft_wrap=True)


def _words(text: str, allowed: set[str], what: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    unknown = [word for word in words if word not in allowed]
    if unknown:
        sys.exit(f"error: {what}: {', '.join(unknown)}: unknown; allowed: {', '.join(sorted(allowed))}")
    return words


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _measure(
    options: Options, quick: bool, against: Path | None, rows: list[report.Row], console: Console
) -> tuple[dict[str, str], dict[str, str], bool]:
    """Do the whole run; return machine, pinning, and whether it was finished. Rows come in even if it was not."""

    def tell(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:5.0f} s[/]  {text}", highlight=False, soft_wrap=True)

    began = time.monotonic()
    finished = False
    with Lab() as lab:
        machine = describe(lab)
        for name, value in machine.items():
            console.print(f"  {name:<19} {value}", highlight=False, soft_wrap=True)
        instances: dict[str, Instance] = {}
        if {SAME_HOST, TAP, LIFE} & set(options.paths):
            instances["tap"] = on_tap(lab)
            if against:
                instances["tap other"] = on_tap(lab, "u", 1, 81, against)
        if {UPLINK, BESIDE} & set(options.paths):
            instances["uplink"] = on_uplink(lab)
            if against:
                instances["uplink other"] = on_uplink(lab, "o", 84, against)
        if AF_XDP in options.paths:
            instances["af_xdp"] = on_veth(lab)
            if against:
                instances["af_xdp other"] = on_veth(lab, "y", 82, against)
        sides = [path for path in options.paths if path != LIFE]
        if LIFE in options.paths:
            sides = [path for path in PATHS if path in (*sides, SAME_HOST, TAP)]
        ground = open_field(lab, sides, instances)
        for site, reason in ground.broken.items():
            tell(f"{site}: {reason}")
        runner = Runner(ground, options, tell, patience=0.0 if quick else 100.0)
        life = LifeRun(ground, options, quick, tell)
        pinning = {f"{side.key}, {each}": side.pinning(each) for side in ground.sides.values() for each in PLACEMENTS}
        try:
            if any(path != LIFE for path in options.paths):
                for program in PROGRAMS:
                    if options.wants(program.name):
                        runner.measure(program())
            if LIFE in options.paths:
                life.measure()
            finished = True
        except KeyboardInterrupt:
            tell("interrupted: what follows is what there is")
        loads: list[Load] = [load for program in PROGRAMS for load in program().loads()]
        rows += report.rows_of(loads, runner.cells, runner.notes, runner.limits, options.paths)
        rows += life.rows
    return machine, pinning, finished


def main() -> int:
    """Run it; the status is 0 when everything that was asked for was measured, whatever the figures say."""
    arguments = _arguments()
    console = Console(width=max(Console().width, 175))
    if arguments.list:
        _list(console)
        return 0
    keys = {load.key for program in PROGRAMS for load in program().loads()} | {program.name for program in PROGRAMS}
    only = _words(arguments.only, keys | set(LIFE_KEYS), "--only")
    paths = _words(arguments.paths, set(PATHS), "--paths") or PATHS
    against: Path | None = arguments.against.resolve() if arguments.against else None
    if against:
        missing = [each for each in ("build/lstack/lstack", ".venv/bin/python") if not (against / each).exists()]
        if missing:
            sys.exit(f"error: --against {against}: no {' and no '.join(missing)} there: scripts/setup, scripts/build")
        paths = tuple(path for path in paths if path != LIFE)  # which compares nothing in turns
    if os.geteuid() != 0:
        print("error: not root: namespaces and devices need it\nhint: sudo make bench", file=sys.stderr)
        return 77
    raise_file_limit()
    signal.signal(signal.SIGTERM, _terminate)
    quick = arguments.quick
    options = Options(arguments.repeat or (2 if quick else 5), 0.2 if quick else 0.4, only, paths)
    rows: list[report.Row] = []
    began = time.monotonic()
    try:
        machine, pinning, finished = _measure(options, quick, against, rows, console)
    except (BenchError, KeyboardInterrupt) as error:
        print(f"error: {error or 'interrupted'}", file=sys.stderr)
        return 69
    console.print()
    report.show(console, rows)
    if against:
        report.show_comparison(console, rows)
    for name, where in pinning.items():
        console.print(f"  {name}: CPUs: {where}", highlight=False)
    runs = f"{options.repeat} runs of each figure in turns, {CLOSE_TIMES * options.repeat} within {CLOSE:.0%} of a bar"
    console.print(f"{runs}, {time.monotonic() - began:.0f} s", highlight=False)
    console.print(report.summary(rows), highlight=False, soft_wrap=True)
    if arguments.json:
        said = {
            "repeat": options.repeat,
            "seconds": options.seconds,
            "quick": quick,
            "only": only,
            "against": str(against or ""),
            "finished": finished,
        }
        arguments.json.write_text(json.dumps(report.as_json(rows, machine, said, pinning), indent=1) + "\n")
    whole = finished and not quick and not only and paths == PATHS
    picture = arguments.svg or (PICTURE if whole else None)
    if picture:
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_text(draw(rows, machine))
        console.print(f"picture: {picture}", highlight=False)
    return 0 if finished else 69


if __name__ == "__main__":
    sys.exit(main())
