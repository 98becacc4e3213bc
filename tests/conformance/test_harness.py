# SPDX-License-Identifier: MulanPSL-2.0
"""The harness itself: it can fail, it survives what it runs, and the table of differences is no blanket."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conformance.compare import Explained, Table, read, verdict
from conformance.docs import DOCUMENT, rendered
from conformance.registry import MODES, load
from conformance.runner import Rig

HERE = Path(__file__).parent
CASE, MODE = "half-close-theirs-then-we-answer", "loopback"
ROW = Explained("a-case", ("server",), ("s.recv(*) = ECONNRESET",), ("s.recv(*) = ''",), "because")


def _plain(argv: list[str]) -> list[str]:
    return argv


@pytest.fixture(scope="module")
def rig_with(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str | None], Rig]]:
    """Make rigs on the loopback of this machine; with a lie the subject gets recv() wrong."""
    directory = tmp_path_factory.mktemp("lie")
    library, rigs = directory / "lie.so", []
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, HERE / "lie.c"], check=True, timeout=60
    )

    def make(lie: str | None) -> Rig:
        def lying(argv: list[str]) -> list[str]:
            return ["env", f"LD_PRELOAD={library}", f"LIE={lie}", *argv]

        rigs.append(Rig(f"rig-{lie}", lying if lie else _plain, _plain, directory / "log", case_s=2.0))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.stop()


def test_two_runs_on_the_kernel_agree(rig_with: Callable[[str | None], Rig]) -> None:
    first, second = rig_with(None).run(CASE, MODE), rig_with(None).run(CASE, MODE)
    assert first == second
    assert "s.recv(100) = 'question'" in first


def test_a_wrong_errno_is_found(rig_with: Callable[[str | None], Rig]) -> None:
    kernel, stack = rig_with(None).run(CASE, MODE), rig_with("errno").run(CASE, MODE)
    said, text = verdict(CASE, MODE, kernel, stack, Table((), {}))
    assert said == "different"
    assert "+s.recv(100) = ENOTSUP" in text or "+s.recv(100) = EOPNOTSUPP" in text


@pytest.mark.parametrize(("lie", "end"), [("hang", "subject hung"), ("die", "subject ended with SIGABRT")])
def test_a_case_that_takes_its_process_along_is_told_and_survived(
    rig_with: Callable[[str | None], Rig], lie: str, end: str
) -> None:
    rig = rig_with(lie)
    for _ in range(2):
        assert end in rig.run(CASE, MODE)[-1]
    assert rig.run("shutdown-unconnected-rd", MODE)


def test_an_explained_line_is_explained() -> None:
    said, why = verdict("a-case", "server", ["x", "s.recv(9) = ECONNRESET"], ["x", "s.recv(9) = ''"], Table((ROW,), {}))
    assert (said, why) == ("explained", "because")


@pytest.mark.parametrize(
    ("case", "mode", "stack"),
    [
        ("a-case", "server", ["y", "s.recv(9) = ''"]),
        ("a-case", "server", ["x", "s.recv(9) = EPIPE"]),
        ("a-case", "client", ["x", "s.recv(9) = ''"]),
        ("other", "server", ["x", "s.recv(9) = ''"]),
    ],
)
def test_an_explained_difference_covers_nothing_else(case: str, mode: str, stack: list[str]) -> None:
    assert verdict(case, mode, ["x", "s.recv(9) = ECONNRESET"], stack, Table((ROW,), {}))[0] == "different"


def test_an_explanation_that_is_no_longer_needed_is_found() -> None:
    assert verdict("a-case", "server", ["x"], ["x"], Table((ROW,), {}))[0] == "different"


def test_every_explanation_is_about_a_case() -> None:
    cases = load()
    for row in read().explained:
        assert any(row.covers(name, mode) for name, case in cases.items() for mode in case.modes), row
        assert set(row.modes) <= MODES.keys()
        assert row.why
        assert row.kernel or row.stack


def test_capabilities_not_yet_there_are_known_ones() -> None:
    known = {need for case in load().values() for need in case.needs}
    assert read().not_yet.keys() <= known


def test_fewer_than_ten_differences_are_explained() -> None:
    assert len(read().explained) < 10


def test_the_suite_is_large_enough() -> None:
    assert len(load()) >= 250


def test_the_reference_page_shows_the_table() -> None:
    assert DOCUMENT.read_text() == rendered(DOCUMENT.read_text()), f"run: {sys.executable} -m conformance.docs"
