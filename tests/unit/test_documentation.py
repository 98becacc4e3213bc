# SPDX-License-Identifier: MulanPSL-2.0
"""What the documentation promises by number or name is what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gazelled.base.exitcode import ExitCode

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "SECURITY.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "CHANGELOG.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]


def test_the_table_of_exit_codes_is_complete() -> None:
    table = (REPOSITORY / "docs/reference/exit-codes.md").read_text()
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == [int(code) for code in ExitCode]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_the_generated_reference_is_what_the_code_is() -> None:
    command = [sys.executable, str(REPOSITORY / "scripts/reference.py"), "check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_commands_of_the_pages_are_targets() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = {name for line in re.findall(r"^([a-z ]+):", makefile, re.MULTILINE) for name in line.split()}
    text = "\n".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE))
    assert {"run", "test"} <= named <= targets, named - targets


def test_the_threat_model_names_tests_that_exist() -> None:
    page = (REPOSITORY / "docs/explanation/security.md").read_text()
    named = set(re.findall(r"`((?:net|unit|conformance|programs)/[\w/]+\.py)`", page))
    assert named
    assert [name for name in sorted(named) if not (REPOSITORY / "tests" / name).is_file()] == []
    builds = "".join(path.read_text() for path in (REPOSITORY / "native").rglob("meson.build"))
    for names in re.findall(r"`ctest ([\w ,]+)`", page):
        assert [name for name in names.split(", ") if f"'{name}'" not in builds] == []
