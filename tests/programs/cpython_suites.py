# SPDX-License-Identifier: MulanPSL-2.0
# ruff: noqa: N802 - the names are unittest's
"""CPython's own network suites, on the kernel and on the stack, compared test by test.

    PYTHONPATH=tests python -m programs.cpython_suites [--limit S] [--json FILE] [--document] [SUITE ...]     (as root)

/usr/bin/python3 runs test_socket    three times, the first at the same time as the others:
  |                    | liblstack   kernel    plainly, on loopback
kernel ---- tap ---- stack           loopback  under `gazelled run`, on loopback
                                     stack     under `gazelled run`, where localhost and 127.0.0.1 mean the stack:
                                               in /etc/hosts as the process sees it, and in the text of the suites

What a program connects to itself so goes through memory it shares with itself, and UDP through the worker; see
docs/reference/cpython-suites.md, which --document writes.

Each suite runs in a process that notes every test as it begins and ends. A test that hangs or crashes its process is
noted as such, with the traces of all threads in the log, and the rest runs in a new process. Ends with 1 if a test that
passes on the kernel does not on the stack and cpython_explained.toml does not say why, or if it explains one that does.

This file is also what the suites run in, by Debian's python3 and without anything of ours: see `drive`.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import PathEntryFinder
    from types import CodeType

    from kit.instance import Instance
    from kit.namespaces import Namespace

    from programs.cpython_compare import Report

SUITES = (
    "test_socket", "test_selectors", "test_socketserver", "test_ftplib", "test_httpservers", "test_ssl", "test_asyncio",
)  # fmt: skip
PYTHON = "/usr/bin/python3"
LIMIT_S = 15
_RESTARTS = 40
_PROCESS_S = 600
_ending = threading.Event()
_PASSED = ("ok", "skipped", "expected failure")


def drive(suite: str, journal: Path, limit: float, host: str | None) -> None:
    """Run what the journal does not mention yet; in a process of its own, in the directory that is current."""
    import faulthandler

    import test  # its __path__ is where the suites are

    if host:
        name_host(host, test.__path__[0])
    from test import support

    known = {entry["id"] for entry in read(journal)}
    # Only this suite takes "network" to mean a network at all; for the others it is hosts of the Internet.
    support.use_resources = ["network"] if suite == "test_socketserver" else []
    with journal.open("a", buffering=1) as notes:

        class Notes(unittest.TestResult):
            def note(self, test: unittest.TestCase, result: str, detail: str = "") -> None:
                notes.write(json.dumps({"id": test.id(), "result": result, "detail": detail}) + "\n")

            def startTest(self, test: unittest.TestCase) -> None:
                super().startTest(test)
                if host:
                    move_udp_lite(suite, test.id(), host)
                self.note(test, "began")
                faulthandler.dump_traceback_later(limit, exit=True)

            def stopTest(self, test: unittest.TestCase) -> None:
                faulthandler.cancel_dump_traceback_later()
                super().stopTest(test)

            def addSuccess(self, test: unittest.TestCase) -> None:
                self.note(test, "ok")

            def addSkip(self, test: unittest.TestCase, reason: str) -> None:
                self.note(test, "skipped", reason)

            def addExpectedFailure(self, test: unittest.TestCase, err: object) -> None:
                self.note(test, "expected failure")

            def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
                self.note(test, "unexpected success")

            def addError(self, test: unittest.TestCase, err: object) -> None:
                self.note(test, "error", self._exc_info_to_string(err, test))  # type: ignore[attr-defined]

            def addFailure(self, test: unittest.TestCase, err: object) -> None:
                self.note(test, "failed", self._exc_info_to_string(err, test))  # type: ignore[attr-defined]

            def addSubTest(self, test: unittest.TestCase, _subtest: unittest.TestCase, err: object) -> None:
                if err is not None:
                    self.note(test, "failed", self._exc_info_to_string(err, test))  # type: ignore[attr-defined]

        faulthandler.enable()
        found = unittest.defaultTestLoader.loadTestsFromName(f"test.{suite}")
        tests = unittest.TestSuite(test for test in flat(found) if test.id() not in known)
        gc.collect()
        gc.freeze()  # many tests collect garbage, and need not look at all modules for it
        tests.run(Notes())
        notes.write(json.dumps({"id": "", "result": "end", "detail": ""}) + "\n")
    os._exit(0)  # threads a failed test left behind are no part of it


def name_host(host: str, directory: str) -> None:
    """Let modules below `directory` read as if they said `host` where they say 127.0.0.1."""
    from importlib.machinery import FileFinder, SourceFileLoader

    class Loader(SourceFileLoader):
        def get_code(self, fullname: str) -> CodeType | None:
            path = self.get_filename(fullname)
            lines = self.get_data(path).splitlines(keepends=True)
            here = host.encode()
            # What a certificate in a file says stays as it is.
            text = (line if b"IP Address" in line else line.replace(b"127.0.0.1", here) for line in lines)
            return self.source_to_code(b"".join(text), path)

    hook = FileFinder.path_hook((Loader, [".py"]))

    def below(path: str) -> PathEntryFinder:
        if not Path(path).is_relative_to(directory):
            raise ImportError
        return hook(path)

    sys.path_hooks.insert(0, below)
    sys.path_importer_cache.clear()


def move_udp_lite(suite: str, test: str, host: str) -> None:
    """Let a test of UDP-Lite use loopback, and any other `host`: that protocol is the kernel's, at addresses it has."""
    from test.support import socket_helper

    module = sys.modules[f"test.{suite}"]
    if not hasattr(module, "SendrecvmsgUDPLITETestBase"):
        return
    address = "127.0.0.1" if "UDPLITE" in test else host
    socket_helper.HOST = socket_helper.HOSTv4 = module.HOST = module.InetTestBase.host = address  # type: ignore[attr-defined]
    socket_helper.bind_port.__defaults__ = (address,)


def flat(tests: unittest.TestSuite | unittest.TestCase) -> list[unittest.TestCase]:
    """Return the tests of a suite, in its order."""
    if isinstance(tests, unittest.TestCase):
        return [tests]
    return [test for inner in tests for test in flat(inner)]


def read(journal: Path) -> list[dict[str, str]]:
    """Read the entries of a journal; the last line may be cut."""
    entries = []
    for line in journal.read_text().splitlines() if journal.exists() else ():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries


def end_of(popen: subprocess.Popen[bytes]) -> int | None:
    """Wait for the end of one process of a suite; None: it takes too long, or we are to end ourselves."""
    deadline = time.monotonic() + _PROCESS_S
    while time.monotonic() < deadline and not _ending.is_set():
        with contextlib.suppress(subprocess.TimeoutExpired):
            return popen.wait(timeout=0.5)
    return None


def outcomes(prefix: list[str], suite: str, directory: Path, *options: str) -> dict[str, dict[str, str]]:
    """Run one suite behind `prefix` (how a command is started there) and return the outcome of each test."""
    journal, log = directory / "journal", directory / "log"
    for _ in range(_RESTARTS):
        inner = [PYTHON, __file__, "--drive", suite, "--journal", str(journal), *options]
        with tempfile.TemporaryDirectory(dir=directory) as current, log.open("ab") as output:
            popen = subprocess.Popen(
                prefix + inner, cwd=current, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
            try:
                status = end_of(popen)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(popen.pid, signal.SIGKILL)  # our own session, with what its tests left
                popen.wait(timeout=10)
        entries = read(journal)
        if _ending.is_set() or not entries or entries[-1]["id"] == "":
            break
        if entries[-1]["result"] == "began":
            how = "hung" if status in (1, None) else f"ended its process: {status}"
            with journal.open("a") as notes:
                notes.write("\n" + json.dumps({"id": entries[-1]["id"], "result": how, "detail": str(log)}) + "\n")
    ends: dict[str, dict[str, str]] = {}
    for entry in read(journal):
        worse = ends.get(entry["id"], {}).get("result", "began") in (*_PASSED, "began")
        if entry["id"] and worse:  # a failed subtest stays failed
            ends[entry["id"]] = entry
    return ends


def drive_by_arguments() -> None:
    """Be the inner process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--drive")
    parser.add_argument("--host")
    parser.add_argument("--limit", type=float)
    parser.add_argument("--journal", type=Path)
    options = parser.parse_args()
    drive(options.drive, options.journal, options.limit, options.host)


def run_places(instance: Instance, plain: Namespace, suites: Sequence[str], directory: Path, limit: float) -> Report:
    """Run the suites at all places and print the counts of each."""
    from concurrent.futures import ThreadPoolExecutor

    from programs.cpython_compare import passed

    hosts = directory / "hosts"
    others = [line for line in Path("/etc/hosts").read_text().splitlines() if "localhost" not in line.split()]
    hosts.write_text("\n".join([f"{instance.address} localhost", *others, ""]))
    named = ["sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"]
    attached, limits = instance.attached(), ("--limit", str(limit))

    def run(suite: str, where: str, prefix: list[str], *more: str) -> dict[str, dict[str, str]]:
        (directory / suite / where).mkdir(parents=True)
        ends = outcomes(prefix, suite, directory / suite / where, *limits, *more)
        again = {name for name, end in ends.items() if end["result"] not in _PASSED}
        if again:  # another look, alone: some tests take this machine to be idle
            second = directory / suite / f"{where}-again"
            second.mkdir()
            rest = (json.dumps(end) + "\n" for name, end in ends.items() if name not in again)
            (second / "journal").write_text("".join(rest))
            ends |= outcomes(prefix, suite, second, *limits, *more)
        return ends

    report = {}
    with ThreadPoolExecutor(1) as beside:
        kernel = {suite: beside.submit(run, suite, "kernel", plain.argv()) for suite in suites}
        try:
            for suite in suites:
                loopback = run(suite, "loopback", instance.home.argv(*attached))
                stack = run(suite, "stack", instance.home.argv(*named, *attached), "--host", instance.address)
                report[suite] = ends = {"kernel": kernel[suite].result(), "loopback": loopback, "stack": stack}
                counts = (f"{passed(ends[where])} on {where}" for where in ends)
                print(f"{suite}: of {len(ends['kernel'])} tests pass {', '.join(counts)}", flush=True)
        except BaseException:
            _ending.set()
            raise
    return report


def main() -> int:
    """Run all and print the differences."""
    if sys.argv[1:2] == ["--drive"]:
        drive_by_arguments()
    from kit.instance import on_tap
    from kit.lab import Kit

    from programs.cpython_compare import DOCUMENT, differences, explanations, passed, rendered, stale, unexplained

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"default: {' '.join(SUITES)}")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds one test may take")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every outcome here")
    parser.add_argument("--document", action="store_true", help="write the page in docs/reference")
    options = parser.parse_args()
    suites = options.suites or SUITES
    if options.document and options.suites:
        parser.error("the page is about all suites")
    version = subprocess.check_output(
        [PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], text=True
    ).strip()
    if not Path(f"/usr/lib/python{version}/test/test_socket.py").exists():
        parser.error(f"needs the Debian package libpython{version}-testsuite")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended by it, too, we leave no instance behind
    directory = Path(tempfile.mkdtemp(prefix="cpython-suites-"))
    kit = Kit(directory)
    try:
        instance, plain = on_tap(kit, options.workers), kit.namespace("k")
        for namespace in (instance.home, plain):
            namespace.run("sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=0")
        instance.start()
        report = run_places(instance, plain, suites, directory, options.limit)
        restarts = sum(row["restarts"] for row in instance.status()["workers"])
    finally:
        kit.close()
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    if options.document:
        DOCUMENT.write_text(rendered(DOCUMENT.read_text(), report))
    table, found = explanations(), [one for ends in report.values() for one in differences(ends)]
    bad, old = unexplained(found, table), stale(found, table, suites)
    for one in found:
        print(f"{'UNEXPLAINED' if one in bad else 'explained' if one.is_worse else 'other'}: {one}")
    for entry in old:
        print(f"explains nothing: {entry}")
    idle = [suite for suite in suites if not passed(report[suite]["kernel"])]
    for suite in idle:
        print(f"nothing of {suite} passes, even on the kernel")  # no test at all is no test passed
    if restarts:
        print(f"workers ended and were started again: {restarts} times")
    print(f"{len(bad)} differences without a reason; logs: {directory}")
    return 1 if bad or old or idle or restarts else 0


if __name__ == "__main__":
    sys.exit(main())
