# SPDX-License-Identifier: MulanPSL-2.0
"""The run directory: one holder of the lock, paths that fit, and nothing but our own processes ended by it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.base.process_identity import ProcessIdentity, end_processes
from gazelled.instance.run_dir import RunDir, bound_log, tail


@pytest.fixture
def run_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GAZELLED_RUN_ROOT", str(tmp_path / "root"))
    return tmp_path / "root"


def test_one_holds_the_lock(run_root: Path) -> None:
    run_dir = RunDir.of("t")
    lock = run_dir.lock()
    assert lock is not None
    assert run_dir.lock() is None
    os.close(lock)
    again = run_dir.lock()
    assert again is not None
    os.close(again)


def test_the_lock_of_a_removed_directory_is_no_lock(run_root: Path) -> None:
    run_dir = RunDir.of("t")
    old = run_dir.lock()
    assert old is not None
    run_dir.remove()
    assert not run_root.exists()
    new = run_dir.lock()
    assert new is not None  # held beside the old one: that one is the lock of nothing
    assert run_dir.lock() is None
    os.close(old)
    os.close(new)


def test_the_root_goes_with_the_last_instance(run_root: Path) -> None:
    for name in ("one", "two"):
        lock = RunDir.of(name).lock()
        assert lock is not None
        os.close(lock)
    assert [run_dir.instance for run_dir in RunDir.all()] == ["one", "two"]
    RunDir.of("one").remove()
    assert run_root.exists()
    RunDir.of("two").remove()
    assert not run_root.exists()
    assert RunDir.all() == []


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAZELLED_RUN_ROOT", "/" + "x" * 100)
    with pytest.raises(GazelledError, match="too long for the sockets in it") as caught:
        RunDir.of("t")
    assert caught.value.exit_code is ExitCode.CONFIG


def test_the_name_of_the_nic_journal_is_reserved(run_root: Path) -> None:
    with pytest.raises(GazelledError, match="reserved"):
        RunDir.of("nics")


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log, 3) == []
    log.write_bytes(b"\xff\n" + b"x" * 20000 + b"\nlast but one\nlast\n")
    assert tail(log, 2) == ["last but one", "last"]


def sleeper(*, deaf: bool) -> subprocess.Popen[bytes]:
    """Start a process that ends at SIGTERM, or does not, and wait until it has decided that."""
    act = "signal.SIG_IGN" if deaf else "signal.SIG_DFL"
    code = f"import signal, time; signal.signal(signal.SIGTERM, {act}); print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return process


def test_processes_are_ended_gently_or_else(run_root: Path) -> None:
    polite, deaf = sleeper(deaf=False), sleeper(deaf=True)
    identities = [ProcessIdentity.of(each.pid) for each in (polite, deaf)]
    assert end_processes([each for each in identities if each], grace=0.3) == []
    assert (polite.wait(), deaf.wait()) == (-15, -9)


def test_a_reused_pid_is_another_process() -> None:
    process = sleeper(deaf=False)
    identity = ProcessIdentity.of(process.pid)
    assert identity is not None
    assert identity.alive
    other = ProcessIdentity(identity.pid, identity.start_time + 1)
    assert not other.alive
    assert other.open() is None
    assert end_processes([other], grace=0.1) == []
    assert identity.alive
    process.kill()
    process.wait()
    assert identity.open() is None
    assert ProcessIdentity.of(process.pid) is None


def test_a_log_that_is_full_goes_on_with_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("a+b") as log:
        log.write(b"".join(b"line %d\n" % number for number in range(200_000)))
        log.flush()
        bound_log(log.fileno())
        log.write(b"after\n")
        log.flush()
        bound_log(log.fileno())
    lines = path.read_bytes().splitlines()
    assert path.stat().st_size < 70_000
    assert lines[-2:] == [b"line 199999", b"after"]
    assert lines[0].startswith(b"line 1")
