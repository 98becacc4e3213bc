# SPDX-License-Identifier: MulanPSL-2.0
"""A supervisor in a process of its own, with fake workers and less patience than usual, for tests.

`python supervised.py RUN_DIR POLICY` runs it and prints its sentences; `Supervised` is what a test holds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

from fake_native import fake_native
from kit.waiting import until
from machines import machine, plain

from gazelled.base.process_identity import read_start_time
from gazelled.instance.run_dir import RunDir, WorkerRecord
from gazelled.instance.worker_process import WorkerProcess
from gazelled.instance.worker_state import Policy
from gazelled.planning.plan import Plan
from gazelled.queue_planner import plan
from gazelled.supervisor import Supervisor

POLICY = Policy(ready_within=1.0, heartbeat_within=0.5, drain_within=0.5, backoff_first=0.05, boot_tries=3)
PATIENCE = 20.0


def two_workers(instance: str = "t") -> Plan:
    """Return a plan without a port, whose workers' CPUs are such as this machine has."""
    made = plan(plain([0, 1], instance=instance), machine())
    allowed = sorted(os.sched_getaffinity(0))
    workers = (replace(each, cpu=allowed[each.queue_id % len(allowed)]) for each in made.workers)
    return replace(made, workers=tuple(workers), device=replace(made.device, driver="none"))


class Supervised:
    """One supervisor at a time, on one run directory; `sentences` is what it has decided so far."""

    def __init__(self, tmp_path: Path, policy: Policy = POLICY) -> None:
        self.run_dir = RunDir(tmp_path / "run" / "t")
        self.behaviour = tmp_path / "behaviour"
        self.behaviour.mkdir(exist_ok=True)
        self.sentences: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self._policy = policy
        self._reader: threading.Thread | None = None

    def behave(self, queue_id: int, how: str) -> None:
        """Say how the worker's next process behaves (see fake_lstack.c); empty: as it should."""
        (self.behaviour / str(queue_id)).write_text(how)

    def start(self) -> None:
        """Start the supervisor, on what is there."""
        self.run_dir.path.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [
                sys.executable,
                __file__,
                str(self.run_dir.path),
                json.dumps(asdict(self._policy)),
                str(fake_native() / "lstack/lstack"),
            ],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "FAKE_LSTACK": str(self.behaviour), "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.sentences.append(line.rstrip("\n"))

    def until_said(self, what: str, seconds: float = PATIENCE) -> str:
        """Wait for a sentence that contains `what` and return it."""
        until(lambda: any(what in sentence for sentence in self.sentences), f"{what!r} in {self.sentences}", seconds)
        return next(sentence for sentence in self.sentences if what in sentence)

    def until_serving(self) -> None:
        """Start and wait until all workers serve."""
        self.start()
        self.until_said("[ready]")

    def worker(self, queue_id: int) -> WorkerRecord:
        """Return what is recorded of a worker."""
        state = self.run_dir.read_state()
        assert state is not None
        return state.workers[queue_id]

    def pid(self, queue_id: int) -> int:
        """Return the pid of a running worker."""
        process = self.worker(queue_id).process
        assert process is not None
        return process.pid

    def spawn_unrecorded(self, queue_id: int) -> WorkerProcess:
        """Start a worker as a supervisor does that dies before it has written it down. The caller reaps it."""
        name, log = two_workers().workers[queue_id].name, self.run_dir.worker_log(queue_id)
        return WorkerProcess.spawn(fake_native() / "lstack/lstack", name, self.run_dir.group_page(0), queue_id, log)

    def signal(self, number: int) -> None:
        """Send the supervisor a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait until the supervisor has ended by itself and return its status."""
        assert self.process is not None
        assert self._reader is not None
        status = self.process.wait(timeout=PATIENCE)
        self._reader.join(timeout=PATIENCE)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None
        return status

    def stop(self) -> int:
        """Have it stop everything."""
        assert self.process is not None
        self.process.terminate()
        return self.end()

    def left_over(self) -> list[str]:
        """Return processes and files of the instance that are there."""
        found = [str(self.run_dir.path)] if self.run_dir.path.exists() else []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and read_start_time(int(entry.name)) is not None:
                try:
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if os.fsencode(self.run_dir.path) + b"/group." in command:
                    found.append(f"process {entry.name}")
        return found

    def clean(self) -> None:
        """End whatever a failed test has left."""
        from gazelled.instance.clean_up import clean_up

        if self.process is not None:
            self.process.kill()
            self.end()
        clean_up(self.run_dir, lambda sentence: None)


def main(run_dir: str, policy: str, program: str) -> int:
    """Be the supervisor."""

    def say(sentence: str) -> None:
        print(sentence, flush=True)

    supervisor = Supervisor(two_workers(), RunDir(Path(run_dir)), Path(program), say, Policy(**json.loads(policy)))
    supervisor.reload = lambda: (supervisor.plan, ["reload asked"])
    problems = supervisor.run(lambda: say("[ready]"))
    return 1 if problems else 0


if __name__ == "__main__":
    from gazelled.base.errors import GazelledError

    try:
        sys.exit(main(*sys.argv[1:]))
    except GazelledError as error:
        for message in error.messages:
            print(f"error: {message}")
        sys.exit(int(error.exit_code))
