# SPDX-License-Identifier: MulanPSL-2.0
"""Runs the fuzz targets, two at a time, and says what came of it.

fuzz/run.py --smoke       the corpus and a few thousand seeded executions of each: what `make test` does
fuzz/run.py --minutes 10  all of them, for ten minutes in all: what `make fuzz MINUTES=10` does

What a run learns stays in build-fuzz/corpus and helps the next; what it finds lies in build-fuzz/findings.
Exit code 1: it found something.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build-fuzz"
SEEDS = ROOT / "fuzz" / "corpus"
AT_ONCE = 2
FINDINGS_MAX = 5  # of one target and run: then it needs mending, not more of the same
DEFAULTS = {
    "ASAN_OPTIONS": "quarantine_size_mb=32:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}


@dataclass(frozen=True)
class Target:
    name: str
    longest: int  # bytes of an input
    smoke_runs: int
    leaks: bool = True  # looked for

    @property
    def command(self) -> list[str]:
        program = ROOT / "fuzz" / f"{self.name}.py"
        return [sys.executable, str(program)] if program.exists() else [str(BUILD / f"fuzz_{self.name}")]


TARGETS = [
    Target("frames", 1500, 1500),
    Target("control", 800, 2000),
    Target("hostile", 1000, 1200),
    # The library's tables are mappings of its own, where a leak checker does not look.
    Target("passed_sock", 600, 300, leaks=False),
    Target("pair", 600, 300, leaks=False),
    Target("configuration", 20000, 1500),
]


@dataclass
class Outcome:
    target: Target
    executions: int = 0
    seconds: float = 0
    coverage: int = 0
    findings: list[Path] = field(default_factory=list)
    trouble: str = ""


def number(pattern: str, text: str) -> int:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def once(target: Target, options: list[str], deadline: float, outcome: Outcome) -> bool:
    """One process of a target, until it is done or has found something. True if it is done."""
    corpus, findings = BUILD / "corpus" / target.name, BUILD / "findings"
    seeds = SEEDS / target.name
    for path in (corpus, findings):
        path.mkdir(parents=True, exist_ok=True)
    known = set(findings.glob(f"{target.name}-*"))
    log = findings / f"{target.name}.log"
    environment = DEFAULTS | dict(os.environ)
    if not target.leaks:
        environment["ASAN_OPTIONS"] += ":detect_leaks=0"
    begin = time.monotonic()
    # What is new goes to the first directory.
    with TemporaryDirectory() as forgotten, log.open("wb") as out:
        first = forgotten if options[0].startswith("-runs") else str(corpus)
        directories = [first, str(seeds)] if seeds.is_dir() else [first]
        done = subprocess.run(
            [
                *target.command,
                f"-max_len={target.longest}",
                "-len_control=0",
                "-entropic=0",  # what it would spend on choosing inputs runs four times as many
                "-timeout=30",
                "-report_slow_units=1000",  # a machine with much to do is no finding; -timeout is one
                "-print_final_stats=1",
                f"-artifact_prefix={findings}/{target.name}-",
                *options,
                *directories,
            ],
            stdout=out,
            stderr=out,
            env=environment,
            cwd=BUILD,
            timeout=max(deadline - time.monotonic(), 0) + 120,
            check=False,
        )
    text = log.read_text(errors="replace")
    outcome.seconds += time.monotonic() - begin
    outcome.executions += number(r"stat::number_of_executed_units: +(\d+)", text)
    outcome.coverage = max(outcome.coverage, number(r"cov: (\d+)", text))
    new = sorted(set(findings.glob(f"{target.name}-*")) - known)
    for path in new:
        path.with_name(path.name + ".txt").write_text(text[-20000:])
    outcome.findings += new
    if done.returncode and not new:
        outcome.trouble = f"ended with {done.returncode}: see {log.relative_to(ROOT)}"
    return not done.returncode or not new


def fuzz(target: Target, seconds: float | None) -> Outcome:
    """`seconds` None: the smoke run, always the same."""
    outcome = Outcome(target)
    deadline = time.monotonic() + (seconds or 60)
    while len(outcome.findings) < FINDINGS_MAX:
        left = int(deadline - time.monotonic())
        if left < 1:
            break
        options = [f"-runs={target.smoke_runs}", "-seed=1"] if seconds is None else [f"-max_total_time={left}"]
        try:
            if once(target, options, deadline, outcome) or seconds is None:
                break
        except subprocess.TimeoutExpired:
            outcome.trouble = "did not end"
            break
    return outcome


def report(outcome: Outcome) -> None:
    rate = outcome.executions / outcome.seconds if outcome.seconds else 0
    print(
        f"{outcome.target.name:13}  {outcome.executions:9,} executions  {rate:6,.0f}/s  {outcome.coverage:6,} edges  ",
        end="",
    )
    if outcome.trouble:
        print(outcome.trouble)
    else:
        print(f"{len(outcome.findings)} findings" if outcome.findings else "nothing found")
    for path in outcome.findings:
        print(f"          {path.relative_to(ROOT)}: {what_it_is(path)}")
    sys.stdout.flush()


def what_it_is(path: Path) -> str:
    text = path.with_name(path.name + ".txt").read_text()
    found = re.search(r"BROKEN: .*|runtime error: .*|lwIP: .*|SUMMARY: .*|ERROR: .*", text)
    return found.group(0)[:160] if found else "see the .txt beside it"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--smoke", action="store_true", help="the corpus, and a few seeded executions more")
    how.add_argument("--minutes", type=float, help="for all targets together")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="frames, control ... (default: all)")
    wanted = parser.parse_args()
    unknown = set(wanted.targets) - {target.name for target in TARGETS}
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))} (there are {', '.join(t.name for t in TARGETS)})")
    targets = [target for target in TARGETS if not wanted.targets or target.name in wanted.targets]
    seconds = None if wanted.smoke else wanted.minutes * 60 * min(AT_ONCE, len(targets)) / len(targets)
    outcomes = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for outcome in pool.map(lambda target: fuzz(target, seconds), targets):
            report(outcome)
            outcomes.append(outcome)
    executions, findings = sum(o.executions for o in outcomes), sum(len(o.findings) for o in outcomes)
    bad = findings or any(o.trouble for o in outcomes)
    verdict = "FOUND SOMETHING" if bad else "clean"
    print(f"{verdict}: {len(targets)} targets, {executions:,} executions, {findings} findings")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
