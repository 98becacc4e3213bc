# SPDX-License-Identifier: MulanPSL-2.0
"""Whatever stands in a file that gazelled reads, it ends in an answer or in words for a person, within two seconds.

An input is the name of a kind of file, a line feed, and the file. It takes the options of libFuzzer that fuzz/run.py
gives, and prints what it would: seeds are files and directories, mutation is by -seed.
"""

from __future__ import annotations

import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from hashlib import sha1
from io import StringIO
from pathlib import Path

from gazelled.base.errors import GazelledError
from gazelled.config import load_config
from gazelled.configuration.model import parse_config
from gazelled.host.journal import Journal
from gazelled.instance.run_dir import RunDir
from gazelled.lifecycle.chosen_plan import instance_name
from gazelled.observe.plan_view import print_plan
from gazelled.observe.status import read_status
from gazelled.planning.topology import load_topology, parse_topology
from gazelled.queue_planner import plan

LONGEST_S = 2.0
EXAMPLE = (Path(__file__).parent.parent / "etc" / "gazelle.toml").read_text()
MACHINE = {
    "cpus": [{"id": i, "numa": i // 2, "core": i, "siblings": [i]} for i in range(4)],
    "hugepages": [{"numa": 0, "size_kb": 2048, "total": 64, "free": 64}],
    "nics": [
        {"name": "eth0", "pci": "0000:01:00.0", "numa": 0, "queues": 4, "addresses": ["10.1.0.2/24"], "mtu": 1500}
    ],
    "memory": [{"numa": 0, "total_kb": 1 << 20, "available_kb": 1 << 19}],
}
TOPOLOGY = parse_topology(json.dumps(MACHINE), "machine")
PLAN = plan(parse_config("", "empty"), TOPOLOGY)
STATE = {
    "supervisor": {"pid": 1, "start_time": 1},
    "workers": [
        {"queue_id": 0, "state": "RUNNING", "process": {"pid": 2, "start_time": 2}, "restarts": 0, "reason": ""}
    ],
}
WORDS = re.compile(r"[A-Za-z0-9_.\-]+|\s+|.", re.DOTALL)
ODD = [
    "", "0", "-1", "1", "65536", "2147483648", "18446744073709551616", "9" * 400, "1e999", "nan", "inf", "true", "null",
    '""', "[]", "{}", "[[", "]]", "'", '"""', "\\", "\x00", "\u202e", "\ud7ff", "é" * 40, "a" * 5000, "0-4294967295",
    "0-99999999", "1,1,1", "3-1", "255.255.255.255/0", "::/0", "fe80::1%eth0/64", "../../../etc", "*", "#", "=", "\n",
    "1979-05-27T07:32:00Z", "0x7f", "1_000", "+1", ".5", "[process]", "[[process]]", "[stack]", "[port.x]", "a.b.c = 1",
]  # fmt: skip


def read_configuration(path: Path) -> None:
    """As `gazelled plan -c FILE` does, and every command that only wants to know the instance."""
    instance_name(None, path)
    print_plan(plan(load_config(path), TOPOLOGY), TOPOLOGY, "gazelled start")


def read_topology(path: Path) -> None:
    """As `gazelled plan --topology FILE` does."""
    topology = load_topology(path)
    print_plan(plan(parse_config(EXAMPLE, "example"), topology), topology, "gazelled start")


def read_state(path: Path) -> None:
    """As `gazelled status` does, of a run directory in which somebody has written."""
    path.rename(path.parent / "state.json")
    (path.parent / "plan.json").write_text(PLAN.to_json())
    read_status(RunDir(path.parent))


def read_plan(path: Path) -> None:
    """The same, of the plan that runs."""
    path.rename(path.parent / "plan.json")
    (path.parent / "state.json").write_text(json.dumps(STATE))
    read_status(RunDir(path.parent))


def read_journal(path: Path) -> None:
    """As `gazelled recover` does, before it undoes anything."""
    Journal(path).pending()


JOURNAL = (
    '{"op":"intent","id":1,"kind":"tap","change":{"name":"gz0","queues":1,"owner":0}}\n{"op":"done","id":1}\n'
    '{"op":"intent","id":2,"kind":"address","change":{"device":"gz0","address":"10.0.0.1/24"}}\n{"op":"undone","id":2}\n'
)
KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "configuration": (read_configuration, EXAMPLE),
    "topology": (read_topology, json.dumps(MACHINE, indent=1)),
    "state": (read_state, json.dumps(STATE)),
    "plan": (read_plan, PLAN.to_json()),
    "journal": (read_journal, JOURNAL),
}


def execute(data: bytes) -> str | None:
    """Return what went wrong; None: nothing."""
    kind, _, content = data.partition(b"\n")
    read, _ = KINDS.get(kind.decode(errors="replace"), KINDS["configuration"])
    with tempfile.TemporaryDirectory(prefix="gz-fuzz-") as directory:
        path = Path(directory) / "input"
        path.write_bytes(content)
        began = time.process_time()
        try:
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                read(path)
        except GazelledError as error:
            if not all(isinstance(message, str) and message for message in error.messages):
                return f"an error without words: {error!r}"
        except Exception as error:
            frames = error.__traceback__
            while frames and frames.tb_next:
                frames = frames.tb_next
            where = f"{frames.tb_frame.f_code.co_filename}:{frames.tb_lineno}" if frames else ""
            return f"{type(error).__name__}: {str(error)[:200]} ({where})"
        took = time.process_time() - began
    return f"took {took:.1f} s" if took > LONGEST_S else None


def mutate(text: str, chance: random.Random) -> bytes:
    """Some words of it deleted, doubled, exchanged, or made odd; then perhaps some bytes."""
    words = WORDS.findall(text)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        if not words:
            break
        at, other = chance.randrange(len(words)), chance.randrange(len(words))
        match chance.randrange(7):
            case 0:
                del words[at]
            case 1:
                words.insert(at, words[other])
            case 2:
                words[at], words[other] = words[other], words[at]
            case 3:
                del words[at : at + chance.randrange(40)]
            case 4:
                words[at:at] = words[other : other + chance.randrange(60)]
            case _:
                words[at] = chance.choice(ODD)
    data = bytearray("".join(words).encode(errors="surrogatepass"))
    for _ in range(chance.choice((0, 0, 0, 1, 4))):
        if data:
            data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def mutate_value(value: object, chance: random.Random) -> object:
    """JSON that is still JSON: one value of it is another, is gone, or is there twice."""
    if isinstance(value, dict) and value and chance.randrange(8):
        key = chance.choice(list(value))
        match chance.randrange(8):
            case 0:
                return {each: value[each] for each in value if each != key}
            case 1:
                return {**value, chance.choice(ODD): value[key]}
        return {**value, key: mutate_value(value[key], chance)}
    if isinstance(value, list) and value and chance.randrange(8):
        at = chance.randrange(len(value))
        again = [value[at]] * chance.randrange(3)
        return [*value[:at], mutate_value(value[at], chance), *again, *value[at + 1 :]]
    odd: list[object] = [
        None,
        True,
        -1,
        0,
        1 << 70,
        1.5,
        float("nan"),
        "",
        "x",
        [],
        {},
        [None],
        {"a": 1},
        [[]],
        chance.choice(ODD),
    ]
    return chance.choice(odd)


def mutate_json(text: str, chance: random.Random) -> bytes:
    """The same of each line, or of all of it."""
    try:
        return json.dumps(mutate_value(json.loads(text), chance)).encode()
    except ValueError:
        lines = text.splitlines()
        at = chance.randrange(len(lines))
        lines[at] = json.dumps(mutate_value(json.loads(lines[at]), chance))
        return "\n".join([*lines, ""]).encode()


def main(arguments: list[str]) -> int:
    options = dict(each[1:].split("=", 1) for each in arguments if each.startswith("-"))
    paths = [Path(each) for each in arguments if not each.startswith("-")]
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    if files and not any(path.is_dir() for path in paths):
        options.setdefault("runs", "0")
    chance = random.Random(options.get("seed"))
    runs, seconds = int(options.get("runs", 1 << 60)), float(options.get("max_total_time", 1e9))
    until, done = time.monotonic() + seconds, 0
    inputs = [file.read_bytes() for file in files] + [f"{kind}\n{text}".encode() for kind, (_, text) in KINDS.items()]
    bases = list(inputs)
    while inputs or (done < runs and time.monotonic() < until):
        if inputs:
            data = inputs.pop()
        elif chance.randrange(4):
            kind = chance.choice(list(KINDS))
            change = mutate_json if kind != "configuration" and chance.randrange(3) else mutate
            data = f"{kind}\n".encode() + change(KINDS[kind][1], chance)
        else:
            base, _, content = chance.choice(bases).partition(b"\n")
            data = base + b"\n" + mutate(content.decode(errors="replace"), chance)
        done += 1
        wrong = execute(data)
        if wrong:
            print(f"BROKEN: {wrong}")
            name = f"{options.get('artifact_prefix', './')}crash-{sha1(data).hexdigest()}"
            Path(name).write_bytes(data)
            print(f"Test unit written to {name}")
            break
    print(f"stat::number_of_executed_units: {done}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
