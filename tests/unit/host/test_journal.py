# SPDX-License-Identifier: MulanPSL-2.0
"""The journal puts the host back, wherever the process that made the changes died."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import pytest

from gazelled.base.errors import GazelledError
from gazelled.host.journal import Journal, register


class Death(BaseException):
    """Stands for kill -9: nothing catches it, and nothing of the process but its files is used afterwards."""


@dataclass
class Fuse:
    """Burns one step at a time and kills at the wanted one; None never kills."""

    steps: int | None = None
    burnt: list[str] = field(default_factory=list)

    def step(self, name: str) -> None:
        if self.steps is not None and len(self.burnt) == self.steps:
            raise Death(name)
        self.burnt.append(name)


FUSE = Fuse()


@register
@dataclass(frozen=True)
class TwoFiles:
    """A host change of two steps: the fake host has it when both files exist."""

    kind: ClassVar[str] = "test-two-files"
    host: str
    name: str
    fail: str = ""

    def _path(self, part: str) -> Path:
        return Path(self.host) / f"{self.name}.{part}"

    def _fails_at(self, step: str) -> None:
        FUSE.step(f"{self.name} {step}")
        if self.fail == step:
            raise OSError(f"{step} failed")

    def describe(self) -> str:
        return f"files {self.name}"

    def apply(self) -> None:
        self._fails_at("apply a")
        self._path("a").touch()
        self._fails_at("apply b")
        self._path("b").touch()

    def verify(self) -> str | None:
        FUSE.step(f"{self.name} verify")
        return "expected a file, found none" if self.fail == "verify" else None

    def undo(self) -> None:
        self._fails_at("undo b")
        self._path("b").unlink(missing_ok=True)
        self._fails_at("undo a")
        self._path("a").unlink(missing_ok=True)

    def to_json(self) -> dict[str, object]:
        return {"host": self.host, "name": self.name, "fail": self.fail}

    @classmethod
    def from_json(cls, data: dict[str, object]) -> Self:
        return cls(str(data["host"]), str(data["name"]), str(data["fail"]))


class MortalJournal(Journal):
    """A journal that also dies before, in the middle of, and after writing a line."""

    def _append(self, record: dict[str, object]) -> None:
        FUSE.step(f"before {record['op']}")
        try:
            FUSE.step(f"torn {record['op']}")
        except Death:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(record)[:9])
            raise
        super()._append(record)
        FUSE.step(f"after {record['op']}")


@pytest.fixture(autouse=True)
def _fuse() -> None:
    FUSE.steps = None
    FUSE.burnt.clear()


@pytest.fixture
def host(tmp_path: Path) -> Path:
    (tmp_path / "host").mkdir()
    return tmp_path / "host"


def silent(line: str) -> None:
    """A report nobody reads."""


def test_changes_are_undone_in_reverse_and_nothing_is_left(host: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run" / "journal")
    for name in ("first", "second"):
        journal.make(TwoFiles(str(host), name))
    assert len(os.listdir(host)) == 4
    assert [change.describe() for change in journal.pending()] == ["files first", "files second"]
    lines: list[str] = []
    assert Journal(journal.path).undo_all(lines.append) == []
    assert lines == ["undone: files second", "undone: files first"]
    assert os.listdir(host) == []
    assert not journal.path.exists()
    assert journal.pending() == []


def test_undoing_nothing_is_no_problem(tmp_path: Path) -> None:
    assert Journal(tmp_path / "none" / "journal").undo_all(silent) == []
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("fail", ["apply a", "apply b", "verify"])
def test_a_failed_change_is_named_and_undone_with_the_others(host: Path, tmp_path: Path, fail: str) -> None:
    journal = Journal(tmp_path / "journal")
    journal.make(TwoFiles(str(host), "good"))
    with pytest.raises(GazelledError, match="files bad: "):
        journal.make(TwoFiles(str(host), "bad", fail))
    assert len(journal.pending()) == 2
    assert journal.undo_all(silent) == []
    assert os.listdir(host) == []


def test_a_failing_undo_is_reported_kept_and_does_not_stop_the_others(host: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.make(TwoFiles(str(host), "first"))
    journal.make(TwoFiles(str(host), "stuck", "undo a"))
    journal.make(TwoFiles(str(host), "last"))
    lines: list[str] = []
    assert journal.undo_all(lines.append) == ["undo of test-two-files: undo a failed"]
    assert lines == ["undone: files last", "not undone: undo of test-two-files: undo a failed", "undone: files first"]
    assert os.listdir(host) == ["stuck.a"]
    assert [change.describe() for change in journal.pending()] == ["files stuck"]


def test_only_the_wanted_changes_are_undone(host: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    for name in ("one", "two"):
        journal.make(TwoFiles(str(host), name))
    assert journal.undo_where(lambda change: change.describe() == "files one", silent) == []
    assert [change.describe() for change in journal.pending()] == ["files two"]


def _make_and_undo(path: Path, host: Path) -> None:
    journal = MortalJournal(path)
    journal.make(TwoFiles(str(host), "one"))
    journal.make(TwoFiles(str(host), "two"))
    assert journal.undo_all(silent) == []


def test_killed_at_any_step_the_host_is_as_before_after_recovery(host: Path, tmp_path: Path) -> None:
    _make_and_undo(tmp_path / "whole", host)
    steps = list(FUSE.burnt)
    assert len(steps) == 28
    for steps_survived in range(len(steps)):
        FUSE.burnt.clear()
        FUSE.steps = steps_survived
        path = tmp_path / f"journal{steps_survived}"
        with pytest.raises(Death):
            _make_and_undo(path, host)
        FUSE.steps = None
        assert Journal(path).undo_all(silent) == [], steps[steps_survived]
        assert os.listdir(host) == [], steps[steps_survived]
        assert not path.exists(), steps[steps_survived]


def test_a_journal_goes_on_after_a_torn_line(host: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.make(TwoFiles(str(host), "one"))
    with journal.path.open("a") as file:
        file.write('{"op":"intent","id":2,"kind":"' + "x" * 1000)  # longer than what will be written over it
    assert len(journal.pending()) == 1
    journal.make(TwoFiles(str(host), "two"))
    assert len(journal.pending()) == 2
    assert journal.undo_all(silent) == []
    assert os.listdir(host) == []


def test_an_unknown_kind_is_a_clear_error_and_the_known_are_undone(host: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.make(TwoFiles(str(host), "one"))
    with journal.path.open("a") as file:
        file.write('{"op":"intent","id":2,"kind":"moon","change":{}}\n')
    with pytest.raises(GazelledError, match=r'journal:3: unknown kind of host change "moon"'):
        journal.pending()
    problems = journal.undo_all(silent)
    assert len(problems) == 1
    assert '"moon"' in problems[0]
    assert os.listdir(host) == []
    assert journal.path.exists()


@pytest.mark.parametrize("line", ["junk", "[]", '{"op":"intent","id":"x"}', '{"op":"leap","id":1}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal"
    path.write_text(f"{line}\n")
    with pytest.raises(GazelledError, match="journal:1: not a journal entry"):
        Journal(path).pending()


def test_two_classes_cannot_share_a_kind() -> None:
    with pytest.raises(ValueError, match="two classes"):

        @register
        class Impostor(TwoFiles):
            pass
