#!/usr/bin/env python3
# SPDX-License-Identifier: MulanPSL-2.0
"""The reference, from one source: pages of docs/reference and man pages, from commands, models and tables of the code.

scripts/reference.py docs           writes the generated pages of docs/reference
scripts/reference.py check          says which of them are not what the code is
scripts/reference.py man DIRECTORY  writes gazelled(8), gazelled-run(1), gazelle.toml(5) and liblstack(7)
scripts/reference.py completion DIRECTORY  writes the completion scripts of bash, zsh and fish
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from gazelled import __version__  # noqa: E402
from gazelled.cli import cli  # noqa: E402
from gazelled.configuration.model import File, schema  # noqa: E402
from gazelled.metrics.families import FAMILIES  # noqa: E402
from gazelled.pages.counters import COUNTERS  # noqa: E402


@dataclass(frozen=True)
class Terms:
    """A list of terms and what each means."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Code:
    """Lines to be typed, or of a file."""

    text: str


Part = str | Terms | Code  # a string is a paragraph
Section = tuple[str, list[Part]]


def option_terms(command: click.Command) -> Terms:
    """Return a command's options as its --help shows them."""
    context = click.Context(command, info_name=command.name)
    rows = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    return Terms(tuple((term, text) for term, text in (row for row in rows if row) if term != "--help"))


def usage(name: str, command: click.Command) -> str:
    """Return a command's line of usage."""
    pieces = command.collect_usage_pieces(click.Context(command, info_name=name))
    return " ".join(["gazelled", name, *pieces]).strip()


def paragraphs(text: str | None) -> list[Part]:
    """Return a docstring's paragraphs, each on one line."""
    return [" ".join(each.split()) for each in re.split(r"\n\s*\n", (text or "").strip()) if each.strip()]


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its name, those of a group as "config show"."""
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            for inner in command.list_commands(context):
                found = command.get_command(context, inner)
                assert found is not None
                yield f"{name} {inner}", found
        else:
            yield name, command


def exit_codes() -> Terms:
    """Return the table of docs/reference/exit-codes.md, which a test holds to the code."""
    page = (REPOSITORY / "docs/reference/exit-codes.md").read_text()
    return Terms(tuple(re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE)))


def key_rows(table: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield key, type, default and meaning of a table of the configuration."""
    whole = schema()
    model = {"stack": "Stack", "process": "Process", "port": "Port", "network": "Network", "security": "Security",
             "metrics": "Metrics"}[table]  # fmt: skip
    for key, found in whole["$defs"][model]["properties"].items():
        default = found.get("default")
        shown = "" if default in (None, []) else f"{default}".lower() if isinstance(default, bool) else f"{default}"
        yield key, _type(found), shown, found["description"]


def _type(found: dict[str, Any]) -> str:
    choices = [each for each in found.get("anyOf", [found]) if each.get("type") != "null"]
    words = []
    for each in choices:
        if "enum" in each:
            words.append(" or ".join(f'"{value}"' for value in each["enum"]))
        elif each.get("type") == "integer":
            low, high = each.get("minimum"), each.get("maximum")
            words.append("integer" + (f", {low} to {high}" if low is not None else ""))
        elif each.get("type") == "array":
            items = each["items"].get("type") or "value"
            words.append(f"list of {items}s")
        else:
            words.append({"boolean": "true or false"}.get(each.get("type", ""), each.get("type", "string")))
    return " or ".join(dict.fromkeys(words))


FILES = Terms((
    ("/etc/gazelle.toml", "the configuration, gazelle.toml(5); of several instances: /etc/gazelled/NAME.toml"),
    ("/run/gazelled/NAME/", "the run directory of an instance: pages, sockets, logs, the journal of host changes"),
    ("/usr/lib/gazelled/", "worker, preload library, tc programs, and the Python packages they are started by"),
))  # fmt: skip
ENVIRONMENT = Terms((
    ("GAZELLED_CONFIG", "the configuration file, if -c does not name one"),
    ("GAZELLED_RUN_ROOT", "the directory of run directories instead of /run/gazelled"),
    ("GAZELLED_NATIVE", "where worker and library are, instead of /usr/lib/gazelled or the source tree's build/"),
    ("NO_COLOR", "no colours, whatever the terminal is"),
))  # fmt: skip


def gazelled_8() -> list[Section]:
    """Return gazelled(8)."""
    told: list[Part] = []
    for name, command in commands():
        told += [f"**{usage(name, command)}**", *paragraphs(command.help), option_terms(command)]
    return [
        ("NAME", ["gazelled - a user-space TCP/IP stack for unmodified programs"]),
        ("SYNOPSIS", ["**gazelled** [**-i** NAME] COMMAND [OPTION]... [ARGUMENT]..."]),
        ("DESCRIPTION", [
            "gazelled plans, starts and watches an instance: a worker process per NIC queue, each with a TCP/IP stack, a "
            "CPU and memory of its own. Programs use it by `gazelled run`, unchanged: see gazelled-run(1).",
            "`stop` puts the host back as it was; after a crash `recover` does. Without a configuration file an instance "
            "is on a tap of its own at 172.29.0.2.",
        ]),
        ("COMMANDS", told),
        ("EXIT STATUS", [exit_codes()]),
        ("FILES", [FILES]),
        ("ENVIRONMENT", [ENVIRONMENT]),
        ("EXAMPLES", [Code(
            "gazelled check\ngazelled start\ngazelled run -- redis-server --bind 172.29.0.2 --protected-mode no\n"
            "gazelled status\ngazelled stop"
        )]),
        ("SEE ALSO", ["gazelled-run(1), gazelle.toml(5), liblstack(7)"]),
    ]  # fmt: skip


def gazelled_run_1() -> list[Section]:
    """Return gazelled-run(1)."""
    run = dict(commands())["run"]
    return [
        ("NAME", ["gazelled-run - run a program on a user-space TCP/IP stack"]),
        ("SYNOPSIS", [f"**{usage('run', run)}**"]),
        ("DESCRIPTION", [
            *paragraphs(run.help),
            "The program is not changed: the library of liblstack(7) is preloaded into it and into the programs it "
            "starts. Programs that are statically linked or set-user-ID cannot have it; `run` says so and does not start them, "
            "unless --fallback kernel is given.",
        ]),
        ("OPTIONS", [option_terms(run)]),
        ("EXIT STATUS", [
            "That of the program. Before it runs:", Terms(tuple(row for row in exit_codes().rows if int(row[0]) >= 64)),
        ]),
        ("ENVIRONMENT", [ENVIRONMENT]),
        ("FILES", [FILES]),
        ("EXAMPLES", [Code(
            "gazelled run -- nginx -g 'daemon off;'\ngazelled run --explain -- curl http://172.29.0.1:8000/"
        )]),
        ("SEE ALSO", ["gazelled(8), liblstack(7)"]),
    ]  # fmt: skip


def gazelle_toml_5() -> list[Section]:
    """Return gazelle.toml(5)."""
    tables: list[Section] = []
    for table in File.model_fields:
        rows = tuple(
            (key, f"{meaning} ({kind}{f'; default {default}' if default else ''})")
            for key, kind, default, meaning in key_rows(table)
        )
        tables.append((f"[[{table}]]" if table == "process" else f"[{table}]", [Terms(rows)]))
    return [
        ("NAME", ["gazelle.toml - the configuration of an instance of gazelled"]),
        ("DESCRIPTION", [
            "A file in TOML. It is looked for at -c FILE, $GAZELLED_CONFIG and /etc/gazelle.toml, in this order; without "
            "one the built-in default holds. Every key has a default. A key that is unknown or out of range is refused "
            "with its line; `gazelled plan` shows what a file leads to and changes nothing.",
        ]),
        *tables,
        ("FILES", [FILES]),
        ("ENVIRONMENT", [ENVIRONMENT]),
        ("EXIT STATUS", ["Commands end with 78 if the file is wrong."]),
        ("EXAMPLES", [Code((REPOSITORY / "etc/gazelle.toml").read_text().rstrip())]),
        ("SEE ALSO", ["gazelled(8)"]),
    ]  # fmt: skip


def liblstack_7() -> list[Section]:
    """Return liblstack(7)."""
    return [
        ("NAME", ["liblstack - the preloaded library by which programs use gazelled's stack"]),
        ("SYNOPSIS", ["**gazelled run** [OPTION]... **--** COMMAND [ARGUMENT]..."]),
        ("DESCRIPTION", [
            "liblstack.so takes the calls of libc that make and use sockets, wait for them, and start processes. TCP and "
            "UDP sockets of IPv4 and IPv6 that the stack can serve are the stack's; all others are the kernel's, and "
            "`gazelled status` counts them by reason. What a program sees is the same on both, as far as "
            "docs/reference/conformance.md does not say otherwise.",
            "A program that makes its system calls without libc, is statically linked or set-user-ID, is not seen by it. "
            "A child of fork(2) and a program started by execve(2) are attached as their parent is.",
            "If the worker of a socket dies, the socket is reset; listeners come back by themselves. If no worker can be "
            "reached, new sockets are the kernel's or refused, as GAZELLED_FALLBACK says.",
        ]),
        ("ENVIRONMENT", [Terms((
            ("LD_PRELOAD", "names the library; `gazelled run` puts it before what was there"),
            ("GAZELLED_GROUP", "the group page of the instance to attach to"),
            ("GAZELLED_FALLBACK", "kernel or fail: what to do if that is impossible"),
            ("GAZELLED_EXPLAIN", "where to write down which path sockets took, for `gazelled run --explain`"),
        ))]),
        ("FILES", [Terms((("/usr/lib/gazelled/shim/liblstack.so", "the library"), *FILES.rows[1:2]))]),
        ("EXIT STATUS", ["A program that must not go on without the stack ends with 69 as it starts."]),
        ("EXAMPLES", [Code("gazelled run --explain -- curl http://172.29.0.1:8000/")]),
        ("SEE ALSO", ["gazelled(8), gazelled-run(1)"]),
    ]  # fmt: skip


MAN_PAGES = {
    "gazelled.8": gazelled_8,
    "gazelled-run.1": gazelled_run_1,
    "gazelle.toml.5": gazelle_toml_5,
    "liblstack.7": liblstack_7,
}


def roff(name: str, sections: list[Section]) -> str:
    """Write a man page."""
    title, _, number = name.rpartition(".")
    lines = [f'.TH "{title.upper()}" {number} "" "gazelled {__version__}" "gazelled"', ".nh", ".ad l"]
    for heading, parts in sections:
        lines.append(f'.SH "{heading}"')
        for part in parts:
            if isinstance(part, Code):
                lines += [".PP", ".nf", *(_escape(line) for line in part.text.splitlines()), ".fi"]
            elif isinstance(part, Terms):
                for term, text in part.rows:
                    lines += [".TP", f"\\fB{_escape(term)}\\fR", _escape(text)]
            elif heading == "NAME":
                lines.append(_escape(part).replace(" \\- ", " \\- "))
            else:
                lines += [".PP", _marked(part)]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _marked(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*|`(.+?)`", lambda found: f"\\fB{found[1] or found[2]}\\fR", _escape(text))


def cli_page() -> str:
    """Return docs/reference/cli.md."""
    lines = ["# Commands", "", "Every command with its options, as `--help` has them. What it ends with: "
             "[Exit codes](exit-codes.md).", ""]  # fmt: skip
    for name, command in commands():
        lines += [f"## {name}", "", f"    {usage(name, command)}", ""]
        for part in paragraphs(command.help):
            lines += [str(part), ""]
        lines += [f"- `{term}`: {text}" for term, text in option_terms(command).rows] + [""]
    return "\n".join(lines).rstrip() + "\n"


def configuration_page() -> str:
    """Return docs/reference/configuration.md."""
    lines = ["# Configuration", "", "What may stand in `gazelle.toml`. [etc/gazelle.toml](../../etc/gazelle.toml) is an "
             "example with every key.", ""]  # fmt: skip
    for table in File.model_fields:
        lines += [f"## [[{table}]]" if table == "process" else f"## [{table}]", ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        lines += [f"| `{key}` | {kind} | {default} | {meaning} |" for key, kind, default, meaning in key_rows(table)]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def metrics_page() -> str:
    """Return docs/reference/metrics.md."""
    rows = [f"| `{each.name}` | {each.kind} | {', '.join(each.labels)} | {each.meaning} |" for each in FAMILIES]
    return "\n".join([
        "# Metrics", "",
        "What `gazelled metrics` prints, and what a process of its own serves where `[metrics] listen` says. Each has the label",
        '`stack`, which is the name of the instance ("instance" is Prometheus\'s own word). `queue` and `worker` are one of at',
        "most 128 workers, `reason` is one of those in `gazelled status`. A family without samples is left out. The dashboard",
        "is `packaging/grafana/gazelled.json`, the alerts are `packaging/prometheus/gazelled.rules.yml`; a test holds both to",
        "this table.", "",
        "| metric | kind | labels | meaning |", "|---|---|---|---|", *rows,
    ]) + "\n"  # fmt: skip


def counters_page() -> str:
    """Return docs/reference/counters.md."""
    rows = [f"| `{each.name}` | {each.unit} | {each.kind} | {each.meaning} |" for each in COUNTERS]
    return "\n".join([
        "# Counters", "",
        "What each worker counts, in the order of `gazelled stats`. The worker alone writes them, and they can be read while it",
        "hangs and after it died. A *total* starts at 0 with the worker and grows; a *gauge* is how many there are now.",
        "The same text is in `gazelled stats --explain NAME`; in C it is `native/include/gazelle/counters.h`.", "",
        "| counter | unit | kind | meaning |", "|---|---|---|---|", *rows,
    ]) + "\n"  # fmt: skip


DOCS = {
    "cli.md": cli_page,
    "configuration.md": configuration_page,
    "metrics.md": metrics_page,
    "counters.md": counters_page,
}


def completion(directory: Path) -> None:
    """Write the completion scripts that click makes."""
    from click.shell_completion import get_completion_class

    for shell, name in (("bash", "gazelled.bash"), ("zsh", "_gazelled"), ("fish", "gazelled.fish")):
        kind = get_completion_class(shell)
        assert kind is not None
        made = kind(cli, {}, "gazelled", "_GAZELLED_COMPLETE")
        (directory / name).write_text(made.source_template % made.source_vars() + "\n")


def main(what: str = "", directory: str = "") -> int:
    """Do what the command line says."""
    pages = REPOSITORY / "docs/reference"
    if what == "docs":
        for name, page in DOCS.items():
            (pages / name).write_text(page())
    elif what == "check":
        old = [name for name, page in DOCS.items() if (pages / name).read_text() != page()]
        if old:
            print(f"not what the code is: {', '.join(old)} (make reference)")
            return 1
    elif what == "man" and directory:
        for name, sections in MAN_PAGES.items():
            (Path(directory) / name).write_text(roff(name, sections()))
    elif what == "completion" and directory:
        completion(Path(directory))
    else:
        print((__doc__ or "").partition("\n\n")[2], file=sys.stderr, end="")
        return 64
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
