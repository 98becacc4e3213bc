# SPDX-License-Identifier: MulanPSL-2.0
"""Logs of an instance: merged by time, from a time on, followed over a cut; the supervisor's lines and journal."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gazelled import cli
from gazelled.base.errors import GazelledError
from gazelled.base.log_line import Repeats, belongs_to_journal, in_journal, line
from gazelled.instance.run_dir import RunDir
from gazelled.lifecycle.worker_journal import WorkerJournal
from gazelled.observe.logs import Follower, read, since


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setenv("GAZELLED_RUN_ROOT", str(tmp_path))
    made = RunDir(tmp_path / "blue")
    made.path.mkdir()
    made.supervisor_log.write_text(
        "2026-01-31T12:00:00.100Z info: starting\n2026-01-31T12:00:02.000Z warning: worker 1 hangs\n"
    )
    made.worker_log(0).write_text("2026-01-31T12:00:01.000Z info: ready\nEAL: no such thing\n")
    made.worker_log(1).with_suffix(".log.old").write_text("2026-01-31T11:00:00.000Z info: earlier\n")
    made.worker_log(1).write_text("2026-01-31T12:00:03.000Z warning: queue full\n")
    return made


def test_lines_of_all_come_in_the_order_of_time(run_dir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["logs", "-i", "blue"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2026-01-31T11:00:00.000Z info    worker 1: earlier",
        "2026-01-31T12:00:00.100Z info    supervisor: starting",
        "2026-01-31T12:00:01.000Z info    worker 0: ready | EAL: no such thing",
        "2026-01-31T12:00:02.000Z warning supervisor: worker 1 hangs",
        "2026-01-31T12:00:03.000Z warning worker 1: queue full",
    ]
    assert cli.run(["logs", "-i", "blue", "--queue", "1", "-n", "1"]) == 0
    assert capsys.readouterr().out == "2026-01-31T12:00:03.000Z warning worker 1: queue full\n"
    assert [entry.who for entry in read(run_dir, (), "2026-01-31T12:00:02")] == ["supervisor", "worker 1"]
    assert cli.run(["logs", "-i", "blue", "--queue", "7"]) == 3
    assert cli.run(["logs", "-i", "green"]) == 3


def test_a_time_is_said_as_people_say_it() -> None:
    now = datetime(2026, 1, 31, 12, 0, 0, 250_000, UTC)
    assert since("90s", now) == "2026-01-31T11:58:30.250Z"
    assert since("2h", now) == "2026-01-31T10:00:00.250Z"
    assert since("2026-01-31T12:00:00+01:00") == "2026-01-31T11:00:00.000Z"
    with pytest.raises(GazelledError, match="no time"):
        since("yesterday")


def test_following_survives_a_log_that_was_cut(run_dir: RunDir) -> None:
    follower = Follower(run_dir, ())
    assert follower.new() == []
    log = run_dir.worker_log(0)
    with log.open("a") as file:
        file.write("2026-01-31T12:00:04.000Z info: one\n2026-01-31T12:00:05.000Z info: half a")
    assert [entry.text for entry in follower.new()] == ["one"]
    with log.open("a") as file:
        file.write(" line\n")
    assert [entry.text for entry in follower.new()] == ["half a line"]
    log.write_text("2026-01-31T12:00:05.000Z info: kept\n")
    assert follower.new() == []
    with log.open("a") as file:
        file.write("2026-01-31T12:00:06.000Z info: after the cut\n")
    run_dir.worker_log(2).write_text("2026-01-31T12:00:07.000Z info: new worker\n")
    assert [entry.text for entry in follower.new()] == ["after the cut", "new worker"]


def test_a_line_of_the_supervisor_has_time_and_level() -> None:
    assert line("warning: cpus: none left", 0.25) == "1970-01-01T00:00:00.250Z warning: cpus: none left\n"
    assert line("gz0: ready\x1b[2J", 1.0).startswith("1970-01-01T00:00:01.000Z info: gz0: ready")
    assert "\x1b" not in line("gz0: ready\x1b[2J", 1.0)


def test_what_is_said_again_is_counted() -> None:
    repeats = Repeats()
    said = [each for sentence in ("a", "a", "a", "b", "b", "c") for each in repeats.sentences(sentence)]
    assert said == ["a", "(said 2 more times)", "b", "(said 1 more time)", "c"]


def test_with_systemd_each_sentence_is_an_entry_of_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, others = tmp_path / "journal", list[str]()
    monkeypatch.setattr("gazelled.base.log_line._JOURNAL", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(path))
        journal.settimeout(5)
        report = in_journal("blue", others.append)
        report("error: port: gone")
        got = dict(line.split("=", 1) for line in journal.recv(4096).decode().splitlines())
    assert got == {
        "MESSAGE": "port: gone", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "gazelled", "GAZELLED_INSTANCE": "blue"
    }  # fmt: skip
    path.unlink()
    report("after the journal went")
    assert others == ["after the journal went"]


def test_what_workers_say_is_told_to_the_journal_once(
    tmp_path: Path, run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    monkeypatch.setattr("gazelled.base.log_line._JOURNAL", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(path))
        journal.setblocking(False)
        workers = WorkerJournal(run_dir, 3)
        workers.look()
        with run_dir.worker_log(0).open("a") as file:
            file.write("2026-01-31T12:00:04.000Z warning: ring full\n2026-01-31T12:00:05.000Z info: not who")
        run_dir.worker_log(2).write_text("2026-01-31T12:00:04.500Z info: ready\n")
        workers.look()
        workers.look()
        entries = []
        with suppress(BlockingIOError):
            while True:
                entries.append(dict(line.split("=", 1) for line in journal.recv(4096).decode().splitlines()))
    assert [(each["MESSAGE"], each["PRIORITY"], each["GAZELLED_QUEUE"]) for each in entries] == [
        ("ring full", "4", "0"),
        ("ready", "6", "2"),
    ]


def test_only_an_output_that_leads_to_the_journal_is_the_journals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "x").open("w") as file:
        found = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert belongs_to_journal(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")
        assert not belongs_to_journal(file.fileno())
        monkeypatch.delenv("JOURNAL_STREAM")
        assert not belongs_to_journal(file.fileno())
