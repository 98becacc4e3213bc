# SPDX-License-Identifier: MulanPSL-2.0
"""A supervisor in the background, and the pipe by which it tells the command that started it how the start goes.

Messages are lines of JSON: {"say": sentence} any number of times, then {"ready": true} or {"errors": [...],
"hint": .., "exit_code": ..}. Without either, it died.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from gazelled.base.errors import ConfigError, GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.base.log_line import Repeats, belongs_to_journal, line
from gazelled.instance.run_dir import RunDir, bound_log, tail
from gazelled.planning.plan import Plan

Report = Callable[[str], None]


def start_in_background(run_dir: RunDir, plan: Plan, config_file: Path | None, lock: int, report: Report) -> None:
    """Run a supervisor that outlives us, and return when all its workers are ready.

    It inherits the lock of the run directory, which is closed here. `config_file`, an absolute path, is what it reads
    again on SIGHUP. What the environment names relative to our directory would be another place from there. Raises what
    went wrong there as if it had happened here.
    """
    plan_reader, plan_writer = os.pipe()
    reader, writer = os.pipe()
    arguments = ["-i", plan.instance, "--lock", str(lock), "--plan", str(plan_reader), "--report", str(writer)]
    if config_file is not None:
        arguments += ["-c", str(config_file)]
    with run_dir.supervisor_log.open("a+b") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "gazelled.lifecycle.background", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock, plan_reader, writer),
            start_new_session=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": _package_path(), "GAZELLED_RUN_ROOT": str(run_dir.path.parent)},
        )
    os.close(plan_reader)
    os.close(writer)
    with os.fdopen(plan_writer, "w") as pipe:
        pipe.write(plan.to_json())
    os.close(lock)
    try:
        with os.fdopen(reader) as messages:
            for message in messages:
                if _understood(json.loads(message), report):
                    supervisor.returncode = 0  # we leave it running on purpose: Popen is not to warn of that
                    return
    except _RelayedError:
        supervisor.wait()  # it has undone everything and only leaves; nothing is to run once we have said so
        raise
    except KeyboardInterrupt:
        supervisor.terminate()
        report("interrupted: undoing what was done")
        supervisor.wait()
        raise
    status = supervisor.wait()
    last = "".join(f"\n    {said}" for said in tail(run_dir.supervisor_log, 5))
    raise GazelledError(
        f"the supervisor ended with status {status} before its workers were ready{last}",
        hint=f"`gazelled recover -i {plan.instance}` puts the host back",
    )


def _package_path() -> str:
    """Return a PYTHONPATH with which the supervisor is of the same installation as we are, wherever that is."""
    return os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")]))


def _understood(message: dict[str, object], report: Report) -> bool:
    """Act on one message; True if it is that all is ready."""
    match message:
        case {"say": str(sentence)}:
            report(sentence)
        case {"ready": True}:
            return True
        case {"errors": [*errors], "hint": hint, "exit_code": int(code)}:
            raise _RelayedError([str(each) for each in errors], None if hint is None else str(hint), ExitCode(code))
    return False


class _RelayedError(ConfigError):
    """An error that happened in the supervisor."""

    def __init__(self, problems: Sequence[str], hint: str | None, exit_code: ExitCode) -> None:
        super().__init__(problems, hint=hint)
        self.exit_code = exit_code


class _Teller:
    """Our end of the pipe; once the command has left, sentences only go to the log."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd
        self._repeats = Repeats()

    def tell(self, message: dict[str, object], *, last: bool = False) -> None:
        if self._fd is None:
            return
        try:
            os.write(self._fd, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            last = True  # the command was killed; the start goes on without it
        if last:
            os.close(self._fd)
            self._fd = None

    def report(self, sentence: str) -> None:
        for each in self._repeats.sentences(sentence):
            _log(each)
        self.tell({"say": sentence})


def _log(sentence: str) -> None:
    """Write a line of the log. One that finds no room is lost; the next one may find some."""
    with suppress(OSError):
        bound_log(sys.stdout.fileno())
        os.write(sys.stdout.fileno(), line(sentence, time.time()).encode(errors="replace"))


def main(argv: Sequence[str]) -> int:
    """Be the supervisor that `start_in_background` runs."""
    parser = ArgumentParser(prog="python -m gazelled.lifecycle.background")
    parser.add_argument("-i", dest="instance", required=True)
    parser.add_argument("-c", dest="config_file", type=Path)
    for descriptor in ("--lock", "--plan", "--report"):
        parser.add_argument(descriptor, type=int, required=True)
    options = parser.parse_args(argv)
    for fd in (options.lock, options.plan, options.report):
        os.set_inheritable(fd, False)  # workers are not to hold our lock
    teller = _Teller(options.report)
    try:
        with os.fdopen(options.plan) as pipe:
            plan = Plan.from_json(pipe.read())
        return supervise(plan, options.config_file, teller.report, lambda: teller.tell({"ready": True}, last=True))
    except GazelledError as error:
        for message in error.messages:
            _log(f"error: {message}")
        teller.tell({"errors": list(error.messages), "hint": error.hint, "exit_code": int(error.exit_code)}, last=True)
        return int(error.exit_code)


def supervise(plan: Plan, config_file: Path | None, report: Report, on_ready: Callable[[], None]) -> int:
    """Run a supervisor in this process to its end; returns the exit status."""
    from gazelled.base.native_build import worker_program
    from gazelled.lifecycle.reload import reconsider
    from gazelled.supervisor import Supervisor

    supervisor = Supervisor(plan, RunDir.of(plan.instance), worker_program(), report)
    if belongs_to_journal(sys.stderr.fileno()):
        from gazelled.lifecycle.worker_journal import WorkerJournal

        supervisor.each_tick = WorkerJournal(RunDir.of(plan.instance), len(plan.workers)).look

    def reload() -> tuple[Plan, list[str]]:
        change = reconsider(supervisor.plan, config_file)
        return change.plan, change.lines

    supervisor.reload = reload
    problems = supervisor.run(on_ready)
    for problem in problems:
        report(f"not put back: {problem}")
    return int(ExitCode.UNAVAILABLE if problems else ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
