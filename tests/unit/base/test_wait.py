# SPDX-License-Identifier: MulanPSL-2.0
"""Waiting ends: with the condition, with the lock, or with a clear error."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gazelled.base import wait
from gazelled.base.command import run
from gazelled.base.errors import GazelledError


def test_a_lock_keeps_others_out_until_it_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "_LOCK_WAIT_S", 0.05)
    with (
        wait.locked(tmp_path),
        pytest.raises(GazelledError, match="another gazelled is changing it"),
        wait.locked(tmp_path),
    ):
        pass
    with wait.locked(tmp_path):
        pass


def test_a_command_keeps_the_lock_its_dead_parent_took_for_it(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    # The parent locks, starts a command that waits for its standard input, says so and dies.
    program = f"""
import os, signal, subprocess
from pathlib import Path
from gazelled.base.wait import locked
with locked(Path({str(tmp_path / "lock")!r}), for_commands=True):
    subprocess.Popen(["cat"], stdin=0, close_fds=False)
    print("started", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        assert parent.stdout.readline() == "started\n"
        parent.wait(timeout=10)
        got = threading.Event()

        def take() -> None:
            with wait.locked(tmp_path / "lock"):
                got.set()

        heir = threading.Thread(target=take)
        heir.start()
        assert not got.wait(0.2)
        parent.stdin.close()
        assert got.wait(10)
        heir.join(10)


def test_waiting_ends_with_what_to_say() -> None:
    wait.wait_for(lambda: True, 0, "never")
    with pytest.raises(GazelledError, match=r"no interface \(waited 0\.05 s\)"):
        wait.wait_for(lambda: False, 0.05, "no interface")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (
            ["sh", "-c", "echo first; echo why >&2; exit 3"],
            r"`sh -c 'echo first; echo why >&2; exit 3'` ended with status 3: why",
        ),
        (["sh", "-c", "kill -9 $$"], "was killed by signal 9"),
        (["gazelled-has-no-such-program", "x"], "gazelled-has-no-such-program: no such program on PATH"),
        (["cat", "/none such"], "`cat '/none such'` ended with status 1"),
    ],
)
def test_a_failed_command_is_shown_as_typed_with_what_it_said(argv: list[str], said: str) -> None:
    with pytest.raises(GazelledError) as error:
        run(argv, hint="try again")
    assert said in error.value.message
    assert error.value.hint == "try again"


def test_a_command_that_does_not_end_is_ended() -> None:
    with pytest.raises(GazelledError, match=r"`sleep 60` did not end within 0\.05 s"):
        run(["sleep", "60"], timeout=0.05)


def test_a_command_answers_in_english_with_what_it_wrote() -> None:
    assert run(["sh", "-c", "echo $LC_ALL; echo err >&2"]).stdout == "C\n"
