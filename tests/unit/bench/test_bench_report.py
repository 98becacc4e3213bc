# SPDX-License-Identifier: MulanPSL-2.0
"""What the bench makes of its measurements: medians, verdicts, tables, JSON, picture; how it reads programs."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bench import report
from bench.cpu import process_seconds
from bench.lab import BenchError
from bench.life_rows import LIFE_KEYS
from bench.picture import draw
from bench.programs import PROGRAMS, Load, Outcome, iperf3, memcached, nginx, redis, sockperf
from bench.report import Row
from bench.runner import Limits, Options, Runner, close_calls
from bench.scale import Memory, memory, split
from bench.side import BASELINE, KERNEL_VETH, OTHER, Field
from bench.stats import Cell, Kind, Sample, Target, Verdict, best_of, figure, is_worse, judge
from bench.targets import AF_XDP, LIFE, SAME_HOST, TAP, TARGETS


def cell(*values: float, placement: str = "spread", cpu: float | None = None, failure: str = "") -> Cell:
    return Cell("side", placement, tuple(Sample(value, cpu) for value in values), failure)


def row(path: str = SAME_HOST, key: str = "redis-get-c50", kernel: Cell | None = None, gazelled: Cell | None = None,
        more: bool = True, note: str = "") -> Row:  # fmt: skip
    return Row(path, key, f"title of {key}", "req/s", more, kernel, gazelled, "M req", note)


# ------------------------------------------------------------------------------------------------ figures


def test_a_cell_is_its_median_and_half_its_range() -> None:
    measured = cell(90, 100, 120, 95, 105)
    assert (measured.median, measured.low, measured.high) == (100, 90, 120)
    assert measured.spread == pytest.approx(0.15)


@given(st.lists(st.floats(1, 1e9), min_size=1, max_size=9))
def test_the_median_lies_within_what_was_measured(values: list[float]) -> None:
    measured = cell(*values)
    assert measured.low <= measured.median <= measured.high
    assert measured.spread >= 0


def test_cpu_is_unknown_where_nothing_measured_it() -> None:
    assert cell(1, 2).cpu is None
    assert cell(1, 2, 3, cpu=7.0).cpu == 7.0


def test_the_best_placement_is_the_fastest_rate_or_the_shortest_latency() -> None:
    cells = [cell(10, placement="spread"), cell(40, placement="one core"), cell(placement="free", failure="no")]
    assert (best_of(cells, True) or cell()).placement == "one core"
    assert (best_of(cells, False) or cell()).placement == "spread"
    assert best_of([cell(failure="no")], True) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.004, "4.0e-03"), (0.25, "0.25"), (3.14159, "3.14"), (99.94, "99.9"), (123456.7, "123,457")],
)
def test_a_figure_has_three_digits_that_count(value: float, text: str) -> None:
    assert figure(value) == text


# ------------------------------------------------------------------------------------------------ verdicts

RATIO = Target(Kind.RATIO, 8, 14)
FRACTION = Target(Kind.FRACTION, 1 / 10, 1 / 30)


@pytest.mark.parametrize(
    ("target", "kernel", "gazelled", "verdict"),
    [
        (RATIO, 100, 1400, Verdict.AIM),
        (RATIO, 100, 1399, Verdict.MUST),
        (RATIO, 100, 800, Verdict.MUST),
        (RATIO, 100, 799, Verdict.MISSED),
        (FRACTION, 30, 1, Verdict.AIM),
        (FRACTION, 30, 3, Verdict.MUST),
        (FRACTION, 30, 3.1, Verdict.MISSED),
        (Target(Kind.AT_LEAST, 8, 16), 100, 8, Verdict.MUST),
        (Target(Kind.AT_LEAST, 8, 16), 1, 7, Verdict.MISSED),
        (Target(Kind.AT_MOST, 150, 50), 1, 151, Verdict.MISSED),
        (Target(Kind.AT_MOST, 150, 50), 1, -3, Verdict.AIM),
    ],
)
def test_a_row_is_judged_by_its_bar(target: Target, kernel: float, gazelled: float, verdict: Verdict) -> None:
    assert judge(target, cell(kernel), cell(gazelled)) is verdict


def test_a_rate_bought_with_more_cpu_misses_a_bar_that_forbids_it() -> None:
    target = Target(Kind.RATIO, 1.15, 1.5, no_more_cpu=True)
    assert judge(target, cell(100, cpu=10), cell(200, cpu=10)) is Verdict.AIM
    assert judge(target, cell(100, cpu=10), cell(200, cpu=10.1)) is Verdict.MISSED
    assert judge(target, cell(100, cpu=10), cell(200)) is Verdict.MISSED


def test_what_was_not_measured_has_failed_and_never_passes() -> None:
    assert judge(RATIO, cell(100), cell(failure="why")) is Verdict.FAILED
    assert judge(RATIO, cell(failure="why"), cell(900)) is Verdict.FAILED
    assert judge(RATIO, None, cell(900)) is Verdict.FAILED
    assert judge(Target(Kind.AT_LEAST, 8, 16), None, cell(9)) is Verdict.MUST
    assert judge(None, cell(1), cell(2)) is Verdict.NONE


@pytest.mark.parametrize(
    ("ours", "other", "more", "worse"),
    [
        ((90, 91, 92), (100, 101, 102), True, True),
        ((97.5, 98, 98.5), (100, 100, 100), True, False),  # 2 %
        ((90, 91, 101), (100, 101, 102), True, False),  # chance would explain it
        ((110, 111, 112), (100, 101, 102), True, False),
        ((110, 111, 112), (100, 101, 102), False, True),
        ((90, 91, 92), (100, 101, 102), False, False),
    ],
)
def test_worse_than_another_checkout_is_more_than_three_percent_beyond_the_spread(
    ours: tuple[float, ...], other: tuple[float, ...], more: bool, worse: bool
) -> None:
    assert is_worse(cell(*ours), cell(*other), more) is worse
    assert not is_worse(cell(*ours), None, more)
    assert not is_worse(cell(failure="why"), cell(*other), more)


def test_a_bar_reads_as_it_is_meant() -> None:
    assert [report.bar(target, target.must) for target in (RATIO, FRACTION, TARGETS[LIFE, "burst-40000"])] == [
        "8x", "1/10", "2x",
    ]  # fmt: skip


def test_every_bar_belongs_to_something_that_is_measured() -> None:
    loads = {load.key for program in PROGRAMS for load in program().loads()}
    for (path, key), target in TARGETS.items():
        assert key in (LIFE_KEYS if path == LIFE else loads), (path, key)
        better = target.aim >= target.must if target.kind.more_is_better else target.aim <= target.must
        assert better, (path, key)


def test_loads_have_names_of_their_own_and_bounds() -> None:
    loads = [load for program in PROGRAMS for load in program().loads()]
    assert len({load.key for load in loads}) == len(loads)
    for load in loads:
        assert load.sized(1e12, 10) <= load.most
        assert load.sized(float("inf"), 1) <= load.most  # what redis-benchmark says of a run below a millisecond
        assert load.sized(0.001, 0.1) == load.first


def test_only_takes_programs_and_single_loads() -> None:
    assert Options(5, 0.5).wants("redis", "redis-get-c1")
    one = Options(5, 0.5, ("redis-get-c1", "nginx"))
    assert one.wants("redis")
    assert one.wants("redis", "redis-get-c1")
    assert not one.wants("redis", "redis-set-c1")
    assert one.wants("nginx", "wrk-new")
    assert not one.wants("sockperf")
    assert Options(5, 0.5, ("wrk-new",)).wants("nginx")


# ------------------------------------------------------------------------------------------------ rows


def load_of(key: str) -> Load:
    (found,) = (load for program in PROGRAMS for load in program().loads() if load.key == key)
    return found


def rows_of(
    key: str, cells: dict[str, list[Cell]], paths: tuple[str, ...] = tuple(BASELINE), limits: Limits | None = None
) -> dict[str, Row]:
    rows = report.rows_of([load_of(key)], {(key, side): each for side, each in cells.items()}, {}, limits or {}, paths)
    return {row.path: row for row in rows}


def test_gazelled_is_compared_with_the_kernel_at_its_best_placement() -> None:
    rows = rows_of("redis-get-c50", {
        "kernel loopback": [cell(50, placement="spread"), cell(60, placement="one core")],
        "kernel veth": [cell(40, placement="spread"), cell(30, placement="one core")],
        SAME_HOST: [cell(600)], TAP: [cell(80)], AF_XDP: [cell(40)],
    })  # fmt: skip
    assert [(each, row.ratio, row.kernel.placement if row.kernel else "") for each, row in rows.items()] == [
        (SAME_HOST, 10, "one core"), (TAP, 2, "spread"), (AF_XDP, 1, "spread"),
    ]  # fmt: skip


def test_the_best_of_all_placements_counts_on_both_sides_and_all_are_kept() -> None:
    (found,) = rows_of("redis-get-c50-p16", {
        "kernel loopback": [cell(168, placement="spread"), cell(92, placement="one core")],
        SAME_HOST: [cell(200, placement="spread"), cell(373, placement="one core")],
        OTHER[SAME_HOST]: [cell(180, placement="spread"), cell(400, placement="one core")],
    }).values()  # fmt: skip
    assert found.kernel
    assert found.gazelled
    assert (found.kernel.placement, found.gazelled.placement) == ("spread", "one core")
    assert found.against_other == 373 / 400
    assert found.worse
    (said,) = report.as_json([found], {}, {}, {})["rows"]
    assert [each["median"] for each in said["placements"]] == [168, 92, 180, 400, 200, 373]
    assert said["other"]["median"] == 400
    out = io.StringIO()
    report.show_comparison(Console(file=out, width=200), [found, row()])
    assert "0.932" in out.getvalue()
    assert "1 rows compared, 1 worse by more than 3%" in out.getvalue()


class FakeSide:
    """As much of a side as a load needs whose server is not looked at."""

    key, attached = "kernel loopback", False


def test_every_placement_is_measured_however_bad_its_first_run_was(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[tuple[str, int]] = []

    def run(_self: Runner, load: Load, _side: object, placement: str, work: int) -> tuple[Sample, Outcome]:
        runs.append((placement, work))
        rate = 1_000_000.0 if placement == "spread" else 1_000.0
        return Sample(rate), Outcome(rate, work)

    monkeypatch.setattr(Runner, "_run", run)
    runner = Runner(Field(None), Options(5, 0.4), lambda _: None)  # type: ignore[arg-type]
    sized = runner._sized(load_of("redis-get-c50"), FakeSide())  # type: ignore[arg-type]
    assert [(placement, work) for _, placement, work in sized] == [("spread", 400_000), ("one core", 2000)]
    assert runs == [("spread", 2000), ("spread", 100_000), ("one core", 2000), ("one core", 2000)]


def test_what_the_tap_allows_stands_beside_its_row_and_no_other() -> None:
    cells = {"kernel veth": [cell(40)], TAP: [cell(50)], AF_XDP: [cell(40)]}
    rows = rows_of("redis-get-c50", cells, limits={"redis-get-c50": {"sleep": [58, 60, 62], "spin": [80]}})
    assert "60 (1.50x) if it sleeps when there is nothing, 80 (2.00x) if it never sleeps" in rows[TAP].note
    assert rows[AF_XDP].note == ""
    assert rows_of("redis-get-c50", cells)[TAP].note == ""


def test_a_limit_has_no_multiple_where_the_kernel_was_not_measured() -> None:
    cells = {"kernel veth": [cell(failure="no server")], TAP: [cell(50)]}
    note = rows_of("redis-get-c50", cells, limits={"redis-get-c50": {"spin": [80]}})[TAP].note
    assert note.startswith("no server; limit: ")
    assert note.endswith("80 if it never sleeps")


def test_a_bar_that_names_a_placement_is_held_against_that_one() -> None:
    rows = rows_of("redis-get-c1", {
        "kernel loopback": [cell(90, placement="spread"), cell(60, placement="one core")], SAME_HOST: [cell(600)],
    })  # fmt: skip
    assert rows[SAME_HOST].ratio == 10


@pytest.mark.parametrize(
    ("key", "veth", "tap", "close"),
    [
        ("redis-get-c50-p16", 100, 119, True),  # the bar is 1.2
        ("redis-get-c50-p16", 100, 121, True),
        ("redis-get-c50-p16", 100, 135, False),
        ("redis-get-c50-p16", 100, 100, False),
        ("redis-set-c50-p16", 100, 120, False),  # no bar
    ],
)
def test_what_is_near_its_bar_is_measured_on(key: str, veth: float, tap: float, close: bool) -> None:
    cells = [Cell(side, "spread", (Sample(value),)) for side, value in ((KERNEL_VETH, veth), (TAP, tap))]
    assert close_calls(load_of(key), cells) == ({KERNEL_VETH, TAP} if close else set())
    assert close_calls(load_of(key), cells[:1]) == set(), "one side alone is no row"


def test_a_side_that_failed_keeps_its_row_and_says_why() -> None:
    (failed,) = rows_of(
        "redis-get-c50", {"kernel loopback": [cell(50)], SAME_HOST: [cell(failure="no answer")]}
    ).values()
    assert failed.verdict is Verdict.FAILED
    assert failed.note == "no answer"


def test_a_row_measured_in_company_says_so() -> None:
    crowded = Cell("side", "spread", tuple(Sample(100, None, {"others": share}) for share in (0.05, 0.3, 0.4)))
    rows = rows_of("redis-get-c50", {"kernel loopback": [cell(50)], SAME_HOST: [crowded]})
    assert "others took" in rows[SAME_HOST].note
    calm = Cell("side", "spread", tuple(Sample(100, None, {"others": share}) for share in (0.05, 0.02, 0.4)))
    assert not rows_of("redis-get-c50", {"kernel loopback": [cell(50)], SAME_HOST: [calm]})[SAME_HOST].note


def everything() -> list[Row]:
    return [
        row(SAME_HOST, "redis-get-c50", cell(50_000, 52_000, cpu=15), cell(500_000, 510_000, cpu=2)),
        row(SAME_HOST, "pingpong-64", cell(10.4), cell(0.35), more=False),
        row(SAME_HOST, "redis-get-c500", cell(50), cell(failure="the server ended"), note="the server ended"),
        row(TAP, "iperf3-1-in", cell(26), cell(7)),
        row(AF_XDP, "redis-get-c50", None, cell(failure="no device"), note="no device"),
        row(LIFE, "idle-cpu", None, cell(0.3), more=False),
    ]


def test_the_table_shows_figures_bars_and_verdicts() -> None:
    out = io.StringIO()
    report.show(Console(file=out, width=200), everything())
    lines = out.getvalue().splitlines()
    first = next(line for line in lines if "51,000" in line)
    assert "505,000" in first
    assert "9.90x" in first
    assert "must met" in first
    assert "8x" in first
    assert "14x" in first
    ping = next(line for line in lines if "pingpong" in line)
    assert "1/29.7" in ping
    assert "1/10" in ping
    assert "the server ended" in out.getvalue()
    assert "MISSED" in next(line for line in lines if "iperf3-1-in" in line)


def test_the_closing_line_counts_and_names_what_is_below() -> None:
    said = report.summary(everything())
    assert said.startswith("targets: 5 measured, 0 at their aim, 3 at their must, 2 below: ")
    assert "tap: title of iperf3-1-in" in said
    assert "af_xdp: title of redis-get-c50" in said
    assert "no row with a target" in report.summary([])


def test_the_json_holds_every_sample() -> None:
    said = json.loads(json.dumps(report.as_json(everything(), {"cpu": "one"}, {"repeat": 2}, {"tap": "here"})))
    assert said["version"] == report.JSON_VERSION
    first = said["rows"][0]
    assert [sample["value"] for sample in first["gazelled"]["samples"]] == [500_000, 510_000]
    assert (first["kernel"]["median"], first["verdict"], first["target"]["must"]) == (51_000, "must met", 8)
    assert said["rows"][2]["gazelled"] == {
        "side": "side",
        "placement": "spread",
        "samples": [],
        "failure": "the server ended",
    }
    assert said["rows"][4]["kernel"] is None


def test_the_picture_is_an_svg_with_a_bar_for_what_was_measured() -> None:
    root = ElementTree.fromstring(draw(everything(), {"cpu": "2 x <x> & y", "kernel": "6"}))
    space = "{http://www.w3.org/2000/svg}"
    bars = [each for each in root.iter(f"{space}rect") if each.get("height") == "12"]
    assert len(bars) == 4
    assert all(float(each.get("width", "0")) > 0 for each in bars)
    texts = [each.text or "" for each in root.iter(f"{space}text")]
    assert any("2 x <x> & y" in each for each in texts)
    assert "the server ended" in texts


# ------------------------------------------------------------------------------------------------ programs' output

REDIS = (
    '"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"\n'
    '"GET","46838.41","0.978","0.040","0.367","4.527","7.447","12.463"\n'
)


def test_redis_benchmark_is_read() -> None:
    assert redis.parse(REDIS, "GET")["rps"] == 46838.41
    with pytest.raises(BenchError, match="no figure of SET"):
        redis.parse(REDIS, "SET")


SOCKPERF = """sockperf: [Valid Duration] RunTime=0.549 sec; SentMessages=52031; ReceivedMessages=52031
sockperf: ====> avg-latency=5.250 (std-dev=1.2)
sockperf: ---> percentile 99.900 =   21.490
sockperf: ---> percentile 99.000 =    8.530
sockperf: ---> percentile 50.000 =    5.120
"""


def test_sockperf_is_read() -> None:
    outcome = sockperf.parse(SOCKPERF)
    assert (outcome.value, outcome.work) == (5.12, 52031)
    assert outcome.extra == {"p99_us": 8.53, "p999_us": 21.49}
    with pytest.raises(BenchError):
        sockperf.parse("sockperf: ERROR: connect")


def test_iperf3_is_read_by_what_arrived() -> None:
    end = {"sum_sent": {"bits_per_second": 9e9, "bytes": 2}, "sum_received": {"bits_per_second": 8e9, "bytes": 1}}
    assert iperf3.parse(json.dumps({"end": end})).value == 8
    with pytest.raises(BenchError, match="refused"):
        iperf3.parse(json.dumps({"error": "connection refused"}))
    with pytest.raises(BenchError, match="no JSON"):
        iperf3.parse("")


WRK = """Running 1s test @ http://10.91.0.2:8080/small
  13457 requests in 1.00s, 11.20MB read
{}Requests/sec:  13440.12
Transfer/sec:     11.18MB
"""


def test_wrk_is_read_and_errors_are_not_overlooked() -> None:
    assert nginx.parse(WRK.format("")).value == 13440.12
    assert nginx.parse(WRK.format("  Socket errors: connect 0, read 0, write 0, timeout 0\n")).work == 13457
    with pytest.raises(BenchError, match="read 5"):
        nginx.parse(WRK.format("  Socket errors: connect 0, read 5, write 0, timeout 0\n"))
    with pytest.raises(BenchError, match="Non-2xx"):
        nginx.parse(WRK.format("  Non-2xx or 3xx responses: 3\n"))
    with pytest.raises(BenchError):
        nginx.parse("unable to connect")


def test_the_own_client_is_read_by_its_last_line() -> None:
    text = '{"connections": 50, "seconds": 0.1}\n{"requests": 9, "rate": 8.5, "p50_us": 1, "p99_us": 2, "p999_us": 3}\n'
    assert memcached.parse(text).value == 8.5
    with pytest.raises(BenchError):
        memcached.parse('{"connections": 50, "seconds": 0.1}\n')


# ------------------------------------------------------------------------------------------------ /proc


def process(proc: Path, pid: int, ticks: int, threads: dict[int, int]) -> None:
    for tid, nanoseconds in threads.items():
        task = proc / str(pid) / "task" / str(tid)
        task.mkdir(parents=True)
        (task / "schedstat").write_text(f"{nanoseconds} 0 1\n")
    words = ["S", "1"] + ["0"] * 9 + [str(ticks), "0"] + ["0"] * 30
    (proc / str(pid) / "stat").write_text(f"{pid} (a (odd) name) {' '.join(words)}\n")


def test_cpu_seconds_are_exact_and_of_all_threads(tmp_path: Path) -> None:
    process(tmp_path, 7, 12, {7: 100_000_000, 8: 23_456_789})
    assert process_seconds(7, tmp_path) == pytest.approx(0.123456789)


def test_threads_that_ended_are_in_the_ticks(tmp_path: Path) -> None:
    process(tmp_path, 7, 500, {7: 100_000_000})
    assert process_seconds(7, tmp_path) == pytest.approx(5.0, rel=0.5)
    assert process_seconds(9, tmp_path) == 0


@given(st.integers(1, 100_000), st.integers(1, 70_000))
def test_connections_are_shared_out_whole(connections: int, most: int) -> None:
    shares = split(connections, most)
    assert sum(shares) == connections
    assert max(shares) <= most
    assert max(shares) - min(shares) <= 1


def test_memory_of_a_connection_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "5").mkdir()
    (tmp_path / "5" / "status").write_text("Name:\tlstack\nRssAnon:\t    2000 kB\nRssShmem:\t  10 kB\n")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nShmem:     3000 kB\nSlab:     400 kB\n")
    grown = memory([5], tmp_path) - Memory(1000 * 1024, 1000 * 1024, 0)
    assert grown.per(1024) == {"worker_kb": 1.0, "shared_kb": 2.0, "kernel_kb": 0.4}
