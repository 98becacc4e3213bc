# SPDX-License-Identifier: MulanPSL-2.0
"""The command line: which command lives where, and how errors and signals become messages and exit codes."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from gazelled import __version__
from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.base.printable import printable_lines
from gazelled.commands.options import instance_option

# command -> (module, one line of help). The attribute in the module has the command's name.
_COMMANDS = {
    "plan": ("plan", "Show which worker, queue, CPU and memory go together, and what is wrong."),
    "topology": ("plan", "Print this host's CPUs, NUMA nodes, hugepages and NICs as JSON."),
    "config": ("config", "Show the effective configuration or its schema."),
    "check": ("check", "Say whether this machine is fit, what is not, and what mends it."),
    "selftest": ("selftest", "Send an echo through an instance of its own: which path, how fast."),
    "start": ("lifecycle", "Start an instance: exactly what `plan` shows."),
    "stop": ("lifecycle", "Stop an instance and put the host back."),
    "restart": ("lifecycle", "Stop, then start."),
    "status": ("lifecycle", "Show workers, applications and which path their sockets took."),
    "stats": ("stats", "Show what the workers have counted, what is wrong first."),
    "logs": ("logs", "Show what supervisor and workers said."),
    "top": ("top", "Show workers, programs, rates and what is wrong, live."),
    "metrics": ("metrics", "Print what Prometheus would be told."),
    "connections": ("connections", "Show every connection, listener and UDP socket (also: ss)."),
    "latency": ("latency", "Show where the time of requests goes."),
    "drain": ("drain", "Take no new connections, and wait for the end of the old."),
    "reload": ("reload", "Take the configuration anew, without a restart as far as that goes."),
    "recover": ("lifecycle", "Undo what a crash left behind."),
    "run": ("run", "Run a program on the stack."),
    "nics": ("nics", "List NICs, what they are used for, and whether they can be bound."),
    "bind": ("nics", "Give a NIC to DPDK."),
    "unbind": ("nics", "Give a NIC back to the kernel."),
}
_ALIASES = {"ss": "connections"}


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of a session, not of the alphabet."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        cmd_name = _ALIASES.get(cmd_name, cmd_name)
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(import_module(f"gazelled.commands.{_COMMANDS[cmd_name][0]}"), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"gazelled.commands.{_COMMANDS[cmd_name][0]}.{cmd_name} is no command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one was probably meant."""
        name = args[0]
        if name not in _COMMANDS and name not in _ALIASES and not name.startswith("-"):
            from difflib import get_close_matches

            meant = get_close_matches(name, _COMMANDS, 1)
            ctx.fail(f"no such command: {name}" + (f' (did you mean "{meant[0]}"?)' if meant else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="gazelled")
@instance_option
def cli(instance: str | None) -> None:
    """Give unmodified programs a user-space TCP/IP stack: one worker process per NIC queue."""


def report(error: GazelledError) -> None:
    """Print an error the way every command does: what is wrong, then what to do."""
    for message in error.messages:
        print(f"error: {printable_lines(message)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


def _invoke(args: list[str]) -> int:
    """Parse and call one command; its status is what it returns or exits with."""
    try:
        with cli.make_context("gazelled", args) as context:
            outcome: Any = cli.invoke(context)
    except click.exceptions.Exit as error:
        outcome = error.exit_code
    sys.stdout.flush()
    return int(outcome) if isinstance(outcome, int) else ExitCode.OK


def run(args: list[str]) -> int:
    """Run one command line and return its exit status; nothing but a bug leaves here as an exception."""
    try:
        return _invoke(args)
    except click.UsageError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        error.show()
        return ExitCode.UNAVAILABLE
    except GazelledError as error:
        report(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has closed it; leave nothing for the interpreter to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        report(GazelledError(f"{error.filename or 'output'}: {error.strerror}", hint="free some space, then try again"))
        return ExitCode.UNAVAILABLE


def main() -> NoReturn:
    """Be the `gazelled` command."""
    if "_GAZELLED_COMPLETE" in os.environ:
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(cli, {}, "gazelled", "_GAZELLED_COMPLETE", os.environ["_GAZELLED_COMPLETE"]))
    sys.exit(run(sys.argv[1:]))
