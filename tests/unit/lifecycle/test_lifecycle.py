# SPDX-License-Identifier: MulanPSL-2.0
"""start, stop, restart, status, run and recover as a person calls them; workers are fakes, there is no port."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_native import compile_c, fake_native
from kit.waiting import until

CPUS = sorted(os.sched_getaffinity(0))


class Gazelled:
    """The command, with a run root and a configuration of a test's own."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.root = tmp_path / "run"
        self.behaviour = tmp_path / "behaviour"
        self.behaviour.mkdir()
        self.config = tmp_path / "gazelle.toml"
        self.configure()

    def configure(self, workers: int = 2, port: str = 'driver = "none"') -> None:
        """Write a configuration; a machine with fewer CPUs than workers gets several processes."""
        cpus = [CPUS[i % len(CPUS)] for i in range(workers)]
        processes = [cpus] if workers <= len(CPUS) else [[cpu] for cpu in cpus]
        tables = "".join(f"[[process]]\ncpus = {each}\n" for each in processes)
        self.config.write_text(f'[stack]\ninstance = "t"\n{tables}[port]\n{port}\n')

    def behave(self, queue_id: int, how: str) -> None:
        (self.behaviour / str(queue_id)).write_text(how)

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "GAZELLED_RUN_ROOT": str(self.root),
            "GAZELLED_NATIVE": str(fake_native()),
            "GAZELLED_CONFIG": str(self.config),
            "FAKE_LSTACK": str(self.behaviour),
        }

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "gazelled", *arguments]

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*arguments), capture_output=True, text=True, timeout=60, env=self.environment(), cwd=self.tmp_path
        )

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("status", "--json").stdout)
        return found

    def processes(self) -> list[int]:
        """Return every process that has to do with this run root."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                except OSError:
                    continue
                if os.fsencode(self.root) in text and int(entry.name) != os.getpid():
                    found.append(int(entry.name))
        return found


@pytest.fixture
def gazelled(tmp_path: Path) -> Iterator[Gazelled]:
    made = Gazelled(tmp_path)
    yield made
    made("stop")
    for pid in made.processes():
        os.kill(pid, signal.SIGKILL)


def nothing_left(gazelled: Gazelled) -> None:
    assert not gazelled.root.exists()
    assert gazelled.processes() == []
    root = "/var/run" if os.geteuid() == 0 else "/tmp"
    assert list(Path(root, "dpdk").glob("gz-t-*")) == []


def test_start_status_stop(gazelled: Gazelled) -> None:
    assert gazelled("status").returncode == 3
    done = gazelled("start")
    assert (done.returncode, done.stdout) == (0, "")  # data goes to stdout, and this has none
    assert "gazellelstack00: ready after" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "instance t runs: 2 workers, stack address 172.29.0.2; next: gazelled run -i t"
    )

    status = gazelled("status", "--json")
    assert status.returncode == 0
    said = json.loads(status.stdout)
    assert (said["instance"], said["state"], said["applications"]) == ("t", "running", [])
    assert said["sockets"] == {"accelerated": 0, "kernel": {}}
    assert [(row["queue_id"], row["name"], row["state"], row["restarts"]) for row in said["workers"]] == [
        (0, "gazellelstack00", "running", 0),
        (1, "gazellelstack01", "running", 0),
    ]
    for row in said["workers"]:
        assert os.sched_getaffinity(row["pid"]) == {row["cpu"]}
        assert Path(f"/proc/{row['pid']}/comm").read_text() == f"{row['name']}\n"

    done = gazelled("stop")
    assert (done.returncode, done.stderr) == (0, "instance t stopped, the host is as before\n")
    nothing_left(gazelled)


def test_the_run_root_may_be_relative(gazelled: Gazelled) -> None:
    absolute = gazelled.root
    gazelled.root = absolute.relative_to(gazelled.tmp_path)
    started, stopped = gazelled("start"), gazelled("stop")
    gazelled.root = absolute
    assert (started.returncode, stopped.returncode) == (0, 0), started.stderr
    nothing_left(gazelled)


def test_stop_and_recover_with_nothing_to_do(gazelled: Gazelled) -> None:
    for command in ("stop", "recover"):
        assert gazelled(command, "-i", "t").returncode == 0
    assert not gazelled.root.exists()


def test_start_again(gazelled: Gazelled) -> None:
    assert gazelled("start").returncode == 0
    pids = [row["pid"] for row in gazelled.status()["workers"]]
    again = gazelled("start")
    assert again.returncode == 0
    assert "instance t already runs by this plan; nothing to do" in again.stderr
    gazelled.configure(workers=1)
    other = gazelled("start")
    assert other.returncode == 78
    assert "error: instance t runs by another plan:" in other.stderr
    assert "error: tot_queue_num: 2 -> 1" in other.stderr
    assert "hint: `gazelled restart -i t` takes the new one" in other.stderr
    assert [row["pid"] for row in gazelled.status()["workers"]] == pids
    assert gazelled("restart").returncode == 0
    assert len(gazelled.status()["workers"]) == 1


def test_two_starts_at_once_make_one_instance(gazelled: Gazelled) -> None:
    both = [
        subprocess.Popen(gazelled.argv("start"), env=gazelled.environment(), stderr=subprocess.PIPE) for _ in (0, 1)
    ]
    texts = [each.communicate(timeout=60)[1] for each in both]
    assert [each.returncode for each in both] == [0, 0], texts
    supervisors = [
        pid
        for pid in gazelled.processes()
        if b"gazelled.lifecycle.background" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(supervisors) == 1


def test_a_failed_start_says_who_and_why_and_leaves_nothing(gazelled: Gazelled) -> None:
    gazelled.behave(1, "fail queue 1: device or resource busy")
    done = gazelled("start")
    assert done.returncode == 69
    lines = done.stderr.splitlines()
    cpu = CPUS[1 % len(CPUS)]
    why = "queue 1: device or resource busy (exited with status 69)"
    assert f"error: gazellelstack01 (queue 1, CPU {cpu}): {why}" in lines
    assert "    fake lstack of queue 1: fail queue 1: device or resource busy" in lines
    nothing_left(gazelled)


def test_a_configuration_with_mistakes_touches_nothing(gazelled: Gazelled) -> None:
    gazelled.config.write_text('[stack]\nidel = "poll"\n[port]\ndriver = "none"\n')
    assert gazelled("start").returncode == 78
    nothing_left(gazelled)


def test_a_plan_with_errors_touches_nothing(gazelled: Gazelled) -> None:
    gazelled.config.write_text('[stack]\ninstance = "t"\n[[process]]\ncpus = [5000]\n[port]\ndriver = "none"\n')
    done = gazelled("start")
    assert done.returncode == 78
    assert "error: cpu 5000: not in this machine" in done.stderr
    nothing_left(gazelled)


def test_restart_by_a_plan_that_cannot_be_started_leaves_the_running_one(gazelled: Gazelled) -> None:
    gazelled("start")
    pids = [row["pid"] for row in gazelled.status()["workers"]]
    gazelled.config.write_text('[stack]\ninstance = "t"\n[[process]]\ncpus = [5000]\n[port]\ndriver = "none"\n')
    assert gazelled("restart").returncode == 78
    assert [row["pid"] for row in gazelled.status()["workers"]] == pids


def test_restart_takes_the_configuration_it_was_started_with(gazelled: Gazelled) -> None:
    elsewhere = gazelled.tmp_path / "elsewhere.toml"
    gazelled.configure(workers=1)
    elsewhere.write_text(gazelled.config.read_text())
    gazelled.configure(workers=2)
    gazelled("start", "-c", "elsewhere.toml")
    before = gazelled.status()
    done = gazelled("restart")
    assert done.returncode == 0, done.stderr
    after = gazelled.status()
    assert (len(after["workers"]), after["state"]) == (1, "running")
    assert after["pid"] != before["pid"]


def test_the_supervisor_may_die_and_start_adopts(gazelled: Gazelled) -> None:
    gazelled("start")
    before = gazelled.status()
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: gazelled("status").returncode == 2, "status to notice")
    alone = gazelled.status()
    assert (alone["state"], alone["pid"]) == ("degraded", None)
    assert [row["state"] for row in alone["workers"]] == ["running", "running"]
    done = gazelled("start")
    assert done.returncode == 0
    assert f"gazellelstack00: adopted, pid {before['workers'][0]['pid']}" in done.stderr
    after = gazelled.status()
    assert after["state"] == "running"
    assert [row["pid"] for row in after["workers"]] == [row["pid"] for row in before["workers"]]


def test_workers_of_another_plan_are_not_adopted(gazelled: Gazelled) -> None:
    gazelled("start")
    os.kill(gazelled.status()["pid"], signal.SIGKILL)
    until(lambda: gazelled("status").returncode == 2, "status to notice")
    gazelled.configure(workers=1)
    done = gazelled("start")
    assert done.returncode == 78
    assert "workers of instance t run without a supervisor, by another plan" in done.stderr
    assert len(gazelled.status()["workers"]) == 2


@pytest.mark.parametrize("command", ["stop", "recover"])
def test_what_a_dead_supervisor_left_is_put_back(gazelled: Gazelled, command: str) -> None:
    gazelled("start")
    os.kill(gazelled.status()["pid"], signal.SIGKILL)
    until(lambda: gazelled("status").returncode == 2, "status to notice")
    assert gazelled(command, "-i", "t").returncode == 0
    nothing_left(gazelled)


def test_start_after_everything_was_killed_begins_anew(gazelled: Gazelled) -> None:
    gazelled("start")
    before = gazelled.status()
    for pid in (before["pid"], *(row["pid"] for row in before["workers"])):
        os.kill(pid, signal.SIGKILL)
    until(lambda: gazelled("status").returncode == 3, "status to notice")
    done = gazelled("start")
    assert done.returncode == 0
    assert "undoing what an earlier run left behind" in done.stderr
    assert [row["restarts"] for row in gazelled.status()["workers"]] == [0, 0]


def test_recover_leaves_a_running_instance_alone(gazelled: Gazelled) -> None:
    gazelled("start")
    done = gazelled("recover", "-i", "t")
    assert done.returncode == 0
    assert "nothing to recover" in done.stderr
    assert gazelled.status()["state"] == "running"


def test_recover_leaves_an_instance_alone_that_is_just_being_started(gazelled: Gazelled) -> None:
    (gazelled.root / "t").mkdir(parents=True)
    with (gazelled.root / "t/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = gazelled("recover")
    assert done.returncode == 0
    assert "just being started" in done.stderr
    assert (gazelled.root / "t/lock").exists()


def test_foreground_serves_a_service_manager(gazelled: Gazelled) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(gazelled.tmp_path / "notify"))
        manager.settimeout(20)
        environment = {**gazelled.environment(), "NOTIFY_SOCKET": str(gazelled.tmp_path / "notify")}
        service = subprocess.Popen(gazelled.argv("start", "--foreground"), env=environment, stderr=subprocess.PIPE)
        said: list[str] = []

        def hear(what: str) -> None:
            while not any(what in each for each in said):
                said.append(manager.recv(4096).decode())

        hear("READY=1")
        assert gazelled.status()["pid"] == service.pid
        hear("STATUS=instance t: 2 of 2 workers run")
        hear("WATCHDOG=1")
        said.clear()
        service.send_signal(signal.SIGHUP)
        hear("RELOADING=1")
        hear("READY=1")
        service.terminate()
        hear("STOPPING=1")
        _, text = service.communicate(timeout=20)
        assert service.returncode == 0
        assert b"configuration read again: nothing has changed" in text
    nothing_left(gazelled)


def test_an_interrupted_start_undoes_itself(gazelled: Gazelled) -> None:
    gazelled.behave(1, "mute")
    command = subprocess.Popen(gazelled.argv("start"), env=gazelled.environment(), stderr=subprocess.PIPE, text=True)
    assert command.stderr is not None
    until(lambda: "ready" in (command.stderr.readline() if command.stderr else ""), "the first worker to be ready")
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=20)
    assert command.returncode == 130, said
    nothing_left(gazelled)


def test_status_imports_nothing_that_is_slow_to_import(gazelled: Gazelled) -> None:
    gazelled("start")
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", *gazelled.argv("status", "--json")[1:]],
        env=gazelled.environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in shown.splitlines()}
    assert "gazelled" in imported
    assert not imported & {"pydantic", "pyroute2", "psutil", "rich", "asyncio", "prometheus_client"}


# ---- run


SHOW = [sys.executable, "-c", "import json, os; print(json.dumps([dict(os.environ), os.getpid()]))"]


def test_run_replaces_itself_by_the_program(gazelled: Gazelled) -> None:
    gazelled("start")
    process = subprocess.Popen(
        gazelled.argv("run", "--", *SHOW), stdout=subprocess.PIPE, env={**gazelled.environment(), "LD_PRELOAD": ""}
    )
    environment, pid = json.loads(process.communicate(timeout=20)[0])
    assert pid == process.pid
    assert environment["LD_PRELOAD"] == str(fake_native() / "shim/liblstack.so")
    assert environment["GAZELLED_GROUP"] == str(gazelled.root / "t/group.0")
    assert environment["GAZELLED_FALLBACK"] == "fail"


def test_run_leaves_signals_as_they_are(gazelled: Gazelled) -> None:
    gazelled("start")
    show = ["sh", "-c", "grep -e SigBlk -e SigIgn /proc/self/status"]
    assert gazelled("run", "--", *show).stdout == subprocess.run(show, capture_output=True, text=True).stdout


def test_run_keeps_what_was_preloaded_before(gazelled: Gazelled) -> None:
    gazelled("start")
    shim = fake_native() / "shim/liblstack.so"
    other = gazelled.tmp_path / "other.so"
    other.write_bytes(shim.read_bytes())
    done = subprocess.run(
        gazelled.argv("run", "--fallback", "kernel", *SHOW),
        capture_output=True,
        env={**gazelled.environment(), "LD_PRELOAD": str(other)},
        timeout=20,
    )
    environment, _ = json.loads(done.stdout)
    assert environment["LD_PRELOAD"] == f"{shim}:{other}"
    assert environment["GAZELLED_FALLBACK"] == "kernel"


def test_the_status_of_run_is_the_programs(gazelled: Gazelled) -> None:
    gazelled("start")
    assert gazelled("run", "--", "sh", "-c", "exit 42").returncode == 42
    assert gazelled("run", "no-such-program-anywhere").returncode == 127
    assert gazelled("run", "/etc/passwd").returncode == 126
    assert gazelled("run").returncode == 64


def test_run_without_an_instance(gazelled: Gazelled) -> None:
    done = gazelled("run", "-i", "nowhere", "--", "true")
    assert done.returncode == 69
    assert done.stderr.startswith("error: instance nowhere does not run\nhint: `gazelled start -i nowhere` starts it")
    done = gazelled("run", "-i", "nowhere", "--fallback", "kernel", "--", "sh", "-c", "echo $LD_PRELOAD; exit 5")
    assert (done.returncode, done.stdout) == (5, "\n")
    assert done.stderr == "gazelled: instance nowhere does not run; sh runs on the kernel\n"


def test_run_in_a_group_there_is_not(gazelled: Gazelled) -> None:
    gazelled("start")
    done = gazelled("run", "--process-index", "7", "true")
    assert done.returncode == 64
    assert "--process-index 7" in done.stderr
    assert "allowed: 0" in done.stderr


def test_run_of_a_static_program(gazelled: Gazelled) -> None:
    gazelled("start")
    source, program = gazelled.tmp_path / "static.c", gazelled.tmp_path / "static"
    source.write_text("int main(void) { return 7; }\n")
    compile_c([source], program, "-static")
    done = gazelled("run", str(program))
    assert done.returncode == 69
    assert f"{program} is statically linked" in done.stderr
    done = gazelled("run", "--fallback", "kernel", str(program))
    assert done.returncode == 7
    assert done.stderr.endswith(f"; {program} runs on the kernel\n")
