# SPDX-License-Identifier: MulanPSL-2.0
"""The command line of plan, topology and config: what it prints where, and how it ends."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from machines import machine

from gazelled import cli
from gazelled.base.errors import ConfigError, GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.base.sizes import iec
from gazelled.pages.run_memory import run_dir_bytes


@pytest.fixture(autouse=True)
def _no_config_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GAZELLED_CONFIG", raising=False)
    monkeypatch.setattr("gazelled.config.DEFAULT_PATH", tmp_path / "absent.toml")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], str]:
    def written(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return written


def gazelled(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gazelled", *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "GAZELLED_CONFIG": "/dev/null", "GAZELLED_RUN_ROOT": "/run/gazelled", **environ},
    )


PLAN = """\
instance default: port tap gz-default (made by start, removed by stop), MTU 1500
stack address 172.29.0.2/24, host's side 172.29.0.1
may attach: root, members of group gazelle; programs of other network namespaces connect, not listen
run directory /run/gazelled/default: {need}, more as connections come
applications of process 0: run on CPUs 1-4,6-7

process 0 (send/recv split)
queue  role  worker           CPU  core/socket  node  pool         mbufs     memory
    0  recv  lstack_recv_0_0    0  0/0             0  rxtx_mbuf_0   7500  66.31 MiB
    1  send  lstack_send_0_0    5  1/1             1  rxtx_mbuf_1   7500  66.31 MiB

1 process, 2 workers, 132.6 MiB of memory; nothing is changed yet: gazelled start -c {config} carries this out
"""


def test_plan_shows_a_table_and_the_next_step(write: Callable[[str, str], str]) -> None:
    config = write("g.toml", "[[process]]\nrecv_cpus = [0]\nsend_cpus = [5]\n")
    done = gazelled("plan", "-c", config, "--topology", write("t.json", machine(nodes=2).to_json()))
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        PLAN.format(config=config, need=iec(run_dir_bytes(2, 1))),
        "",
    )


def test_plan_shows_what_start_needs_of_the_host(write: Callable[[str, str], str]) -> None:
    config = write("g.toml", "process = [{ cpus = [0] }]\nport = { driver = 'pci', device = '03:00.0' }\n")
    bare = {"name": "", "pci": "0000:03:00.0"}
    there = {**json.loads(machine().to_json()), "nics": [bare]}
    there["hugepages"] = [{"numa": 0, "size_kb": 2048, "total": 64, "free": 60}]
    done = gazelled("plan", "-c", config, "--topology", write("t.json", json.dumps(there)))
    assert done.returncode == 0
    assert "NIC 0000:03:00.0: bound to vfio-pci by start, given back by stop\n" in done.stdout
    assert "hugepages on node 0: 43 of 2 MiB, 60 are free\n" in done.stdout


def test_a_plan_with_an_error_is_shown_whole_and_ends_78(write: Callable[[str, str], str]) -> None:
    config = write("g.toml", "[[process]]\ncpus = [0, 9]\n")
    topology = write("t.json", machine().to_json())
    done = gazelled("plan", "-c", config, "--topology", topology)
    assert done.returncode == 78
    assert "gazellelstack01" in done.stdout
    assert "error: cpu 9: not in this machine, which has 0-3 (wanted by gazellelstack01)\n  hint: " in done.stdout
    assert done.stdout.endswith("1 error: start would refuse and change nothing\n")
    as_json = gazelled("plan", "-c", config, "--topology", topology, "--json")
    assert as_json.returncode == 78
    data = json.loads(as_json.stdout)
    assert data["workers"][1]["cpu"] == 9
    assert [(finding["severity"], finding["object"]) for finding in data["findings"]] == [("error", "cpu 9")]


def test_five_mistakes_are_five_errors_on_stderr_and_78(write: Callable[[str, str], str]) -> None:
    config = write(
        "g.toml", "[stack]\nidle = 1\n\nspin = 2\n[port]\ndriver = 'x'\nmtu = 'y'\n[network]\nhost_addr = 3\n"
    )
    done = gazelled("plan", GAZELLED_CONFIG=config)
    lines = done.stderr.splitlines()
    assert [line.split(":")[:3] for line in lines[:5]] == [["error", f" {config}", line] for line in "24679"]
    assert lines[5:] == ["hint: `gazelled config schema` has every key with its type, range and meaning"]
    assert (done.returncode, done.stdout) == (78, "")


def test_the_built_in_default_plans_for_this_machine() -> None:
    done = gazelled("plan", "--json", "-i", "mine")
    data = json.loads(done.stdout)
    assert 1 <= data["tot_queue_num"] <= 2
    assert (data["instance"], data["device"]["name"]) == ("mine", "gz-mine")


def test_a_machine_of_1024_cpus_is_planned_whole(write: Callable[[str, str], str]) -> None:
    config = write("g.toml", "[[process]]\ncpus = '0-1023'\n")
    done = gazelled("plan", "-c", config, "--topology", write("t.json", machine(4, 256).to_json()))
    assert done.returncode == 78  # an instance has at most 128 workers
    assert "gazellelstack1023" in done.stdout
    assert "more of this severity (--json shows all)" in done.stdout


def test_topology_of_one_machine_plans_on_another(write: Callable[[str, str], str]) -> None:
    text = gazelled("topology").stdout
    assert json.loads(text).keys() == {"cpus", "hugepages", "nics", "memory"}
    config = write("g.toml", "network.host_addr = '198.18.77.2/24'")
    assert gazelled("plan", "--json", "-c", config, "--topology", write("t.json", text)).returncode == 0


def test_config_show_prints_a_file_that_means_the_same(
    write: Callable[[str, str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = write("g.toml", "[[process]]\ncpus = '0-1'\n[[process]]\ncpus = [2, 3]\n[stack]\nspin_us = 7\n")
    assert cli.run(["config", "show", "-c", config]) == 0
    shown = capsys.readouterr().out
    assert cli.run(["config", "show", "--json", "-c", config]) == 0
    data = json.loads(capsys.readouterr().out)
    assert cli.run(["config", "show", "--json", "-c", write("h.toml", shown)]) == 0
    assert json.loads(capsys.readouterr().out) == data
    assert data["process"] == [{"cpus": [0, 1]}, {"cpus": [2, 3]}]
    assert (data["stack"]["spin_us"], data["port"]["rx_queue_size"]) == (7, 4096)


def test_config_show_without_a_file_says_what_was_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["config", "show"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("# from built-in\n")
    assert "[[process]]\ncpus = [" in shown


def test_config_schema_is_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Stack"]["properties"]["idle"]["enum"] == ["adaptive", "poll"]


@pytest.mark.parametrize(
    "args", [["-i", "b", "config", "show"], ["config", "-i", "b", "show"], ["config", "show", "-i", "b"]]
)
def test_the_instance_may_be_named_before_or_after_the_command(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*args, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stack"]["instance"] == "b"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["plam"], 'no such command: plam (did you mean "plan"?)'),
        (["plan", "--jsn"], "No such option"),
        (["plan", "extra"], "unexpected extra argument"),
        (["-i", "../x", "plan"], "1 to 31 letters"),
        ([], "Usage:"),
    ],
)
def test_a_wrong_command_line_ends_64(args: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(args) == 64
    assert told in capsys.readouterr().err


def test_help_lists_every_command_without_loading_one() -> None:
    code = (
        "import sys; from gazelled import cli; cli.run(['--help']); slow = ('gazelled.commands.', 'pydantic', 'rich')\n"
        "sys.exit(any(n.startswith(slow) and n != 'gazelled.commands.options' for n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    for command in [
        "plan",
        "topology",
        "config",
        "start",
        "stop",
        "restart",
        "status",
        "recover",
        "run",
        "nics",
        "bind",
        "unbind",
    ]:
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (GazelledError("a: b", hint="do c"), ExitCode.UNAVAILABLE, "error: a: b\nhint: do c\n"),
        (GazelledError("no", exit_code=ExitCode.PERMISSION), ExitCode.PERMISSION, "error: no\n"),
        (ConfigError(["x:1: y", "x:2: z"]), ExitCode.CONFIG, "error: x:1: y\nerror: x:2: z\n"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "interrupted\n"),
    ],
)
def test_errors_become_messages_and_exit_codes(
    error: BaseException, status: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("gazelled.commands.plan.load_config", fail)
    assert cli.run(["plan"]) == status
    assert capsys.readouterr().err == told


def test_a_reader_that_has_had_enough_is_no_error(write: Callable[[str, str], str]) -> None:
    topology = write("t.json", machine(4, 256).to_json())
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "gazelled", "plan", "--json", "-c", "/dev/null", "--topology", topology]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_colour_only_on_a_terminal(write: Callable[[str, str], str]) -> None:
    topology = write("t.json", machine(cores=1).to_json())
    assert "\x1b" not in gazelled("plan", "--topology", topology).stdout
    assert "\x1b[" in gazelled("plan", "--topology", topology, FORCE_COLOR="1", TERM="xterm").stdout
