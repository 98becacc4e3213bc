# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled top`: an instance as it works, again and again."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from gazelled.base.exitcode import ExitCode
from gazelled.commands.options import instance_option
from gazelled.lifecycle.chosen_plan import instance_name


@click.command()
@instance_option
@click.option("--every", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, help="Seconds between looks.")
@click.option("--once", is_flag=True, help="Print one screen and end; also where the output is no terminal.")
@click.option("--columns", type=click.IntRange(60), help="Of that screen (default: the terminal's, or 80).")
@click.option("--lines", "rows", type=click.IntRange(12), help="Of that screen (default: the terminal's, or 24).")
def top(instance: str | None, every: float, once: bool, columns: int | None, rows: int | None) -> int:
    """Show workers, programs, rates and what is wrong, live.

    Keys: c, p, b, n sort workers by CPU, packets, bytes or connections, 0 by queue; q quits. The workers do not notice.
    """
    from gazelled.instance.run_dir import RunDir
    from gazelled.observe.top import SORTS, sample, screen

    run_dir = RunDir.of(instance_name(instance))
    before = sample(run_dir)
    if once or not sys.stdout.isatty():
        size = os.terminal_size((columns or 80, rows or 24))
        time.sleep(every)
        for text, _ in screen(before, sample(run_dir), size.columns, size.lines):
            click.echo(text.rstrip())
        return ExitCode.OK
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    styles = {style: style for style in ("", "bold", "reverse", "red", "dim")}
    if os.environ.get("NO_COLOR"):
        styles["red"] = "bold"
    sort = "queue"
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            deadline = time.monotonic() + every
            while (left := deadline - time.monotonic()) > 0:
                key = pressed(left)
                if key in ("q", "\x03"):
                    return ExitCode.OK
                if key == "0" or key in SORTS:
                    sort = SORTS.get(key, "queue")
                    break
            after = sample(run_dir)
            lines = screen(before, after, console.width, console.height, sort)
            texts = (Text(text, styles[style], no_wrap=True, overflow="crop") for text, style in lines)
            live.update(Group(*texts), refresh=True)
            before = after


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits for a key for so many seconds; the terminal is as before afterwards."""
    import termios
    import tty

    def quit_cleanly(*_: object) -> None:
        raise KeyboardInterrupt

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd) if sys.stdin.isatty() else None
    old = {number: signal.signal(number, quit_cleanly) for number in (signal.SIGTERM, signal.SIGHUP)}

    def pressed(seconds: float) -> str:
        if before is None:
            time.sleep(seconds)
            return ""
        ready, _, _ = select.select([fd], [], [], seconds)
        return os.read(fd, 1).decode(errors="replace") if ready else ""

    try:
        if before is not None:
            tty.setcbreak(fd)
        yield pressed
    finally:
        if before is not None:
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
        for number, handler in old.items():
            signal.signal(number, handler)
