# SPDX-License-Identifier: MulanPSL-2.0
# ruff: noqa: N802 - the names are unittest's
"""CPython's own network suites, on the kernel and on the stack, compared test by test.

    PYTHONPATH=tests python -m programs.cpython_suites [--limit S] [--json FILE] [SUITE ...]     (as root)

            namespace S                 three times:
/usr/bin/python3 runs test_socket       kernel    plainly, on loopback
  |                    | liblstack      loopback  under `gazelled run`, on loopback: the listeners are the stack's, but
kernel ---- tap ---- stack                        what a process connects to itself is the kernel's
                                        stack     under `gazelled run`, the suite's HOST is the stack's address: every
                                                  connection it accepts is the stack's, its other end is the kernel's

Each suite runs in a process that notes every test as it begins and ends. A test that hangs or crashes its process is
noted as such, with the traces of all threads in the log, and the rest runs in a new process. Ends with 1 if a test that
passes on the kernel does not pass on the stack.

This file is also what the suites run in, by Debian's python3 and without anything of ours: see `drive`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SUITES = (
    "test_socket", "test_selectors", "test_socketserver", "test_ftplib", "test_httpservers", "test_ssl", "test_asyncio",
)  # fmt: skip
PYTHON = "/usr/bin/python3"
LIMIT_S = 30
_RESTARTS = 40
_PASSED = ("ok", "skipped", "expected failure")


def drive(suite: str, journal: Path, limit: float, host: str | None) -> None:
    """Run what the journal does not mention yet; in a process of its own, in the directory that is current."""
    import faulthandler

    from test import support
    from test.support import socket_helper

    known = {entry["id"] for entry in read(journal)}
    # Only this suite takes "network" to mean a network at all; for the others it is hosts of the Internet.
    support.use_resources = ["network"] if suite == "test_socketserver" else []
    if host:
        socket_helper.HOST = socket_helper.HOSTv4 = host
    with journal.open("a", buffering=1) as notes:

        class Notes(unittest.TestResult):
            def note(self, test: unittest.TestCase, result: str, detail: str = "") -> None:
                notes.write(json.dumps({"id": test.id(), "result": result, "detail": detail}) + "\n")

            def startTest(self, test: unittest.TestCase) -> None:
                super().startTest(test)
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

            def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: object) -> None:
                if err is not None:
                    self.note(test, "failed", self._exc_info_to_string(err, test))  # type: ignore[attr-defined]

        faulthandler.enable()
        found = unittest.defaultTestLoader.loadTestsFromName(f"test.{suite}")
        unittest.TestSuite(test for test in flat(found) if test.id() not in known).run(Notes())
        notes.write(json.dumps({"id": "", "result": "end", "detail": ""}) + "\n")
    os._exit(0)  # threads a failed test left behind are no part of it


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
                status: int | None = popen.wait(timeout=900)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(popen.pid, signal.SIGKILL)  # our own session, with what its tests left
                popen.wait(timeout=10)
        entries = read(journal)
        if not entries or entries[-1]["id"] == "":
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


def passed(ends: dict[str, dict[str, str]]) -> str:
    """Return how many passed, and of how many."""
    return f"{sum(end['result'] == 'ok' for end in ends.values())}/{len(ends)}"


def compare(kernel: dict[str, dict[str, str]], other: dict[str, dict[str, str]], where: str) -> int:
    """Print every difference; return how many tests no longer pass."""
    worse = 0
    absent = {"result": "not run", "detail": ""}
    for name in sorted(kernel.keys() | other.keys()):
        a, b = kernel.get(name, absent), other.get(name, absent)
        if a["result"] != b["result"]:
            worse += a["result"] in _PASSED and b["result"] not in _PASSED
            last = (b["detail"].strip().splitlines() or [""])[-1]
            print(f"  {name}: {a['result']} on the kernel, {b['result']} on {where}: {last}", flush=True)
    return worse


def main() -> int:
    """Run all and print the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"default: {' '.join(SUITES)}")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds one test may take")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every outcome here")
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    parser.add_argument("--host", help=argparse.SUPPRESS)
    parser.add_argument("--journal", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        drive(options.drive, options.journal, options.limit, options.host)
    from net.instance import on_tap
    from net.kit import Kit

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended by it, too, we leave no instance behind
    directory = Path(tempfile.mkdtemp(prefix="cpython-suites-"))
    kit = Kit(directory)
    report: dict[str, object] = {}
    worse = 0
    try:
        instance = on_tap(kit, options.workers)
        instance.home.run("sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=0")
        instance.start()
        for suite in options.suites or SUITES:
            ends: dict[str, dict[str, dict[str, str]]] = {}
            limit = ("--limit", str(options.limit))
            attached = instance.attached()
            for where, prefix, more in (
                ("kernel", [], limit),
                ("loopback", attached, limit),
                ("stack", attached, (*limit, "--host", instance.address)),
            ):
                (directory / suite / where).mkdir(parents=True)
                ends[where] = outcomes(instance.home.argv(*prefix), suite, directory / suite / where, *more)
            print(f"{suite}: " + ", ".join(f"{passed(ends[where])} passed on {where}" for where in ends))
            for where in ("loopback", "stack"):
                worse += compare(ends["kernel"], ends[where], where)
            report[suite] = ends
            if options.json:
                options.json.write_text(json.dumps(report, indent=1))
        print(f"logs: {directory}")
    finally:
        kit.close()
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
