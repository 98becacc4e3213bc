# SPDX-License-Identifier: MulanPSL-2.0
"""What `gazelled stats` makes of worker pages, and what it calls wrong."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import pytest
from machines import machine, plain

from gazelled.base.errors import GazelledError
from gazelled.base.run_root import run_root
from gazelled.cli import run
from gazelled.instance.run_dir import RunDir
from gazelled.observe.stats import changes, concerns, lines, read, totals
from gazelled.pages import worker_page
from gazelled.pages.counters import COUNTERS
from gazelled.queue_planner import plan


def write(run_dir: RunDir, queue_id: int, pid: int = 1000, **values: int) -> None:
    """Write a worker's page; packet buffers are free unless said otherwise."""
    raw = worker_page._WorkerPage(magic=worker_page.MAGIC, abi_version=1, size=worker_page.SIZE, state=1, pid=pid)
    for name, value in {"mbufs_free": 1 << 20, **values}.items():
        raw.counters[worker_page.COUNTERS.index(name)] = value
    run_dir.worker_page(queue_id).write_bytes(bytes(raw))


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """An instance with two workers, of which one has a page."""
    made = RunDir(tmp_path / "t")
    made.path.mkdir()
    made.write("plan.json", plan(plain([0, 1], instance="t"), machine()).to_json())
    write(made, 0, rx_packets=100, tx_packets=90)
    return made


def test_the_sum_is_over_the_workers_that_have_started(run_dir: RunDir) -> None:
    assert totals(read(run_dir))["rx_packets"] == 100
    write(run_dir, 1, rx_packets=20)
    assert totals(read(run_dir))["rx_packets"] == 120
    assert [worker.queue_id for worker in read(run_dir, [1])] == [1]


def test_rates_are_of_totals_and_a_worker_that_began_anew_counts_from_zero(run_dir: RunDir) -> None:
    write(run_dir, 1, pid=1001, rx_packets=1000, connections=3)
    before = read(run_dir)
    write(run_dir, 0, rx_packets=150, connections=7)
    write(run_dir, 1, pid=1002, rx_packets=40, connections=1)
    first, second = changes(before, read(run_dir))
    assert (first.counters["rx_packets"], first.counters["connections"]) == (50, 7)
    assert (second.counters["rx_packets"], second.counters["connections"]) == (40, 1)


def test_what_is_wrong_stands_first_with_what_to_do(run_dir: RunDir) -> None:
    write(run_dir, 0, rx_packets=1000, tx_packets=1000, steered_out=60, retransmits=20, listen_overflow=5, mbufs_free=3)
    write(run_dir, 1, rx_packets=0)
    assert [concern.counter for concern in concerns(read(run_dir))] == [
        "listen_overflow", "mbufs_free", "steered_out", "retransmits",
    ]  # fmt: skip
    shown = list(lines(read(run_dir), None, every=False))
    assert shown[0].startswith("attention: listen_overflow 5: programs accept too slowly; ")
    assert not any(line.startswith("sleeps") for line in shown)


def test_a_healthy_worker_concerns_nobody(run_dir: RunDir) -> None:
    write(run_dir, 0, rx_packets=1000, tx_packets=1000, steered_out=50, retransmits=10, rx_dropped=4)
    assert list(concerns(read(run_dir))) == []


@pytest.mark.parametrize(("queues", "says"), [((7,), "queue 7: instance t has none of that number")])
def test_an_unknown_queue_is_named(run_dir: RunDir, queues: tuple[int, ...], says: str) -> None:
    with pytest.raises(GazelledError, match=says):
        read(run_dir, queues)


def test_an_instance_that_does_not_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(GazelledError, match="instance none: not running"):
        read(RunDir(tmp_path / "none"))


def test_the_command(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GAZELLED_RUN_ROOT", str(run_dir.path.parent))
    assert run_root() == run_dir.path.parent
    assert run(["stats", "-i", "t", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["instance"], said["seconds"], said["totals"]["rx_packets"]) == ("t", None, 100)
    assert set(said["totals"]) == {counter.name for counter in COUNTERS}
    assert run(["stats", "--explain", "steered_out"]) == 0
    assert "handed to the worker whose connection they belong to" in capsys.readouterr().out
    assert run(["stats", "--explain", "steered"]) == 64


def test_the_page_holds_them_all() -> None:
    assert len(COUNTERS) <= worker_page.COUNTERS_SIZE == ctypes.sizeof(worker_page._WorkerPage().counters) // 8


def test_the_reference_has_every_counter() -> None:
    table = (Path(__file__).parents[3] / "docs/reference/counters.md").read_text()
    for counter in COUNTERS:
        assert f"| `{counter.name}` | {counter.unit} | {counter.kind} | {counter.meaning} |" in table
