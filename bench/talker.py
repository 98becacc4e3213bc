# SPDX-License-Identifier: MulanPSL-2.0
"""The bench's own client and server, held open and spoken to: bench/native/load.c and bench/native/echo.c."""

from __future__ import annotations

import contextlib
import json
import select
from types import TracebackType

from kit.lab import Process

from bench.lab import BenchError, end_of_output, until
from bench.side import Side, Site

PORT = 7007
REQUEST = "gazelled" * 8


class Echo:
    """An echo server on a site; a context manager."""

    def __init__(self, site: Site, side: Side, cpu: int | None, port: int = PORT) -> None:
        lab = site.lab
        self._port = port
        argv = [lab.compiled("echo"), site.address, str(port)]
        self.process = site.spawn(argv, cpu)
        self._side = side

    def __enter__(self) -> Echo:
        try:
            until(self._ready, "the echo server to answer", 10)
        except BenchError:
            self.process.stop()
            raise
        return self

    def _ready(self) -> bool:
        if not self.process.alive:
            raise BenchError(f"echo ended: {end_of_output(self.process.output())}")
        if "ready" not in self.process.output():
            return False
        try:
            with Talker(self._side, 1, 1, None, port=self._port) as talker:
                return talker.ask("count 1", 2)["requests"] == 1
        except BenchError:
            return False

    def __exit__(self, *_: object) -> None:
        self.process.stop()


class Talker:
    """A client with many connections of which some are busy; a context manager."""

    def __init__(
        self, side: Side, connections: int, busy: int, cpu: int | None, seconds: float = 10.0, port: int = PORT,
        request: str = REQUEST, response: int = len(REQUEST), burst: bool = False,
    ) -> None:  # fmt: skip
        lab = side.site.lab
        argv = [lab.compiled("load"), "--to", side.address, "--port", str(port), "--connections", str(connections),
                "--busy", str(busy), "--request", request, "--response", str(response)]  # fmt: skip
        if burst:  # then the first line says that it is ready to connect
            argv.append("--burst")
        if side.sources:
            argv += ["--from", ",".join(side.sources)]
        self.process: Process = lab.spawn(argv, side.namespace, side.environment, cpu, talk=True)
        self._connect_s = seconds
        self.connected: dict[str, float] = {}

    def __enter__(self) -> Talker:
        try:
            self.connected = self._line(self._connect_s)
        except BenchError:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        if self.process.popen.stdin and not self.process.popen.stdin.closed:
            with contextlib.suppress(BrokenPipeError):  # it ended before us
                self.process.popen.stdin.close()
        self.process.stop()
        if self.process.popen.stdout:
            self.process.popen.stdout.close()

    def begin(self, command: str) -> None:
        """Give a command."""
        stdin = self.process.popen.stdin
        assert stdin is not None
        try:
            stdin.write(command + "\n")
            stdin.flush()
        except BrokenPipeError:
            raise BenchError(f"load ended: {end_of_output(self.process.output())}") from None

    def ask(self, command: str, seconds: float = 30.0) -> dict[str, float]:
        """Give a command and return what it measured."""
        self.begin(command)
        return self._line(seconds)

    def result(self, seconds: float = 30.0) -> dict[str, float]:
        """Return what a command begun before has measured."""
        return self._line(seconds)

    def _line(self, seconds: float) -> dict[str, float]:
        # One line at a time is asked for and comes whole, so what select sees is what readline gets.
        stdout = self.process.popen.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], seconds)[0]:
            raise BenchError(f"load: no answer after {seconds:g} s")
        line = stdout.readline()
        if not line:
            raise BenchError(f"load ended: {end_of_output(self.process.output())}")
        said: dict[str, float] = json.loads(line)
        return said
