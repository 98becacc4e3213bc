# SPDX-License-Identifier: MulanPSL-2.0
"""A configuration file: what it means, where it is looked for, and that its mistakes are told all at once."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gazelled.base.cpulist import format_cpus, parse_cpus
from gazelled.base.errors import ConfigError
from gazelled.base.exitcode import ExitCode
from gazelled.config import BUILT_IN, Config, PortConfig, ProcessConfig, find_config, load_config
from gazelled.configuration.model import File, parse_config, schema

EXAMPLE = Path(__file__).parents[3] / "etc" / "gazelle.toml"


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "f.toml")
    assert caught.value.exit_code == ExitCode.CONFIG
    return caught.value.problems


def test_five_mistakes_are_five_errors_each_on_its_line() -> None:
    text = """\
[stack]
idle = "lazy"

[[process]]
cpus = [0, 1]

[[process]]
recv_cpus = "3-2"
send_cpus = [1]

[port]
rx_queue_sise = 4096
tx_queue_size = 100

[network]
host_addr = "172.29.0.255/24"
"""
    assert problems(text) == (
        'f.toml:2: stack.idle: "lazy" is unknown; allowed: "adaptive", "poll"',
        'f.toml:8: process[1].recv_cpus: "3-2" is no CPU list: the range "3-2" runs backwards; allowed: a list of CPU '
        'numbers ([0, 1]) or a string ("2-5,8")',
        'f.toml:12: port.rx_queue_sise: unknown key (did you mean "rx_queue_size"?)',
        "f.toml:13: port.tx_queue_size: 100 is no power of two; allowed: a power of two from 64 to 32768 (64 or 128)",
        'f.toml:16: network.host_addr: "172.29.0.255/24" is the broadcast address of 172.29.0.0/24; allowed: an IPv4 '
        'address with its prefix, as "172.29.0.2/24" (did you mean "172.29.0.1/24"?)',
    )


def mistakes() -> list[tuple[str, str]]:
    blocks = (Path(__file__).parent / "config_mistakes.txt").read_text().split("\n\n")[1:]
    return [(text, told.strip()) for text, _, told in (block.partition("\n=> ") for block in blocks)]


@pytest.mark.parametrize(("text", "told"), mistakes())
def test_a_mistake_says_where_what_and_what_is_allowed(text: str, told: str) -> None:
    assert problems(text) == (f"f.toml:{told}",)


def test_a_wrong_host_address_is_not_also_a_wrong_gateway() -> None:
    assert len(problems("network.host_addr = 'x'\nnetwork.gateway_addr = '10.0.0.1'")) == 1


def test_mistakes_within_and_between_keys_of_a_table_are_told_together() -> None:
    told = problems("[port]\ndriver = 'pci'\nmtu = 1\nrx = 3\nhost_driver = 'vfio'")
    assert [line.split(":")[1] for line in told] == ["2", "3", "4", "5"]


def test_lists_strings_and_several_processes_mean_what_they_say() -> None:
    read = parse_config(
        "[[process]]\ncpus = '2-3,8'\n[[process]]\ncpus = [5, 4, 6]\n[port]\ndriver = 'pci'\n"
        "device = ['03:00.A', '0000:03:00.1']".replace("A", "0"),
        "x",
    )
    assert read.process == (ProcessConfig(cpus=(2, 3, 8)), ProcessConfig(cpus=(5, 4, 6)))
    assert read.port.device == ("0000:03:00.0", "0000:03:00.1")
    assert read.port.host_driver == "vfio-pci"


def test_what_only_a_plan_can_judge_is_no_mistake_of_the_file() -> None:
    read = parse_config("[[process]]\ncpus = [0, 0]\n[[process]]\nrecv_cpus = [1]\nsend_cpus = [2, 3]", "x")
    assert [process.num_queue for process in read.process] == [2, 4]


def test_the_split_counts_send_cpus_twice() -> None:
    process = ProcessConfig(recv_cpus=(0, 1), send_cpus=(2, 3))
    assert (process.split, process.num_cpu, process.num_queue) == (True, 2, 4)


def test_the_shipped_example_is_the_default_and_shows_every_key() -> None:
    text = EXAMPLE.read_text()
    assert parse_config(text, "x") == Config(source="x")
    shown = set(re.findall(r"^#? ?(\w+) = ", text, re.MULTILINE))
    tables = schema()["$defs"].values()
    assert shown == {key for table in tables for key in table["properties"]}


def test_the_example_uncommented_is_valid_too() -> None:
    text = re.sub(r"^# (?=(?!uplink)\w+ = |\[\[)", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert problems(text) == (
        'f.toml:39: port.host_driver: "vfio-pci" has no meaning with driver "tap"; allowed: only with driver "pci" '
        "(leave it out)",
    )


def test_defaults_of_the_schema_are_those_in_force() -> None:
    assert parse_config("", "x") == Config(source="x")
    assert File().model_dump()["stack"]["mbuf_count_per_conn"] == Config().stack.mbuf_count_per_conn
    json.dumps(schema())


def test_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    etc, env, given_ = tmp_path / "etc.toml", tmp_path / "env.toml", tmp_path / "given.toml"
    monkeypatch.setattr("gazelled.config.DEFAULT_PATH", etc)
    (tmp_path / "gazelle.toml").write_text("never read")
    assert find_config(None, {}) is None
    assert find_config(None, {"GAZELLED_CONFIG": ""}) is None
    etc.write_text("")
    assert find_config(None, {}) == etc
    assert find_config(None, {"GAZELLED_CONFIG": str(env)}) == env
    assert find_config(given_, {"GAZELLED_CONFIG": str(env)}) == given_


def test_without_a_file_small_rings_on_the_embedded_tap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GAZELLED_CONFIG", raising=False)
    monkeypatch.setattr("gazelled.config.DEFAULT_PATH", tmp_path / "absent")
    assert load_config() == BUILT_IN
    assert BUILT_IN.port == PortConfig(rx_queue_size=1024, tx_queue_size=1024)
    assert load_config(instance="b").stack.instance == "b"


def test_a_file_that_was_asked_for_must_exist_and_be_text(tmp_path: Path) -> None:
    absent = tmp_path / "absent.toml"
    with pytest.raises(ConfigError) as caught:
        load_config(absent)
    assert caught.value.problems == (f"{absent}: No such file or directory",)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"[stack]\n# \xff\n")
    with pytest.raises(ConfigError) as caught:
        load_config(binary)
    assert caught.value.problems == (f"{binary}:2: not UTF-8 (byte 0xff)",)


@given(st.lists(st.integers(0, 70), min_size=1))
def test_a_cpu_list_reads_back_what_it_printed(cpus: list[int]) -> None:
    assert parse_cpus(format_cpus(cpus)) == tuple(sorted(set(cpus)))


def test_no_cpus_are_none() -> None:
    assert (format_cpus([]), parse_cpus(" ")) == ("none", ())


@pytest.mark.parametrize("text", ["1-", "a", "1,,2", "-1", "1-2-3", "65536", "0-9999999"])  # fmt: skip
def test_a_bad_cpu_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r'^(the range )?"'):
        parse_cpus(text)
