# SPDX-License-Identifier: MulanPSL-2.0
"""The conformance suite makes namespaces and devices. Without root it fails: what is left out is not passed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.places import Places, placed

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if HERE in item.path.parents]
    if ours and os.geteuid() != 0:
        raise pytest.UsageError("the conformance suite makes namespaces and devices: run it as root")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the cases that differed once and not again."""
    unsteady = [
        str(value)
        for report in terminalreporter.getreports("passed") + terminalreporter.getreports("xfailed")
        for name, value in report.user_properties
        if name == "unsteady"
    ]
    if unsteady:
        terminalreporter.section(f"{len(unsteady)} differences that did not come again")
        terminalreporter.write_line("\n".join(unsteady))


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Return where cases run; one instance and a few processes for the whole session."""
    with placed(tmp_path_factory.mktemp("conformance")) as made:
        yield made
