# SPDX-License-Identifier: MulanPSL-2.0
"""The journal of host changes: written before a change is made, read to put everything back.

A change is an intent line (durable before the host is touched), then `apply`, `verify`, then a done line. Undoing runs
in reverse and marks each entry once the host is as before. A process killed between any two of these steps leaves an
entry that is pending although its change may be not made, half made, or already undone: that is why `undo` of every
change must be idempotent and safe in all three cases. When nothing is pending any more the file is removed.

One writer at a time: a process that opens a journal to write holds a lock of its own (the supervisor's instance lock,
the NIC lock). Readers need none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Protocol, Self, TypeVar

from gazelled.base.errors import GazelledError


class HostChange(Protocol):
    """One reversible change of the host. Everything `undo` needs is in `to_json`: it may run in another process."""

    kind: ClassVar[str]

    def describe(self) -> str:
        """Say in a few words what the change makes, e.g. "tap gz-default"."""

    def apply(self) -> None:
        """Make the change; doing it again changes nothing."""

    def verify(self) -> str | None:
        """Return None if the host is as wanted, else "expected .., found .."."""

    def undo(self) -> None:
        """Put the host back; safe if the change was never made, half made or already undone."""

    def to_json(self) -> dict[str, object]:
        """Return what `from_json` needs to rebuild this change in another process."""

    @classmethod
    def from_json(cls, data: dict[str, object]) -> Self:
        """Rebuild a change from `to_json`'s answer."""


class FlatChange:
    """The part of a change for the journal, for a dataclass whose fields are texts and whole numbers."""

    def to_json(self) -> dict[str, object]:
        """Return this as the journal keeps it."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, data: dict[str, object]) -> Self:
        """Rebuild it from the journal."""
        types = {field.name: int if field.type == "int" else str for field in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: made(str(data[name])) for name, made in types.items()})


_kinds: dict[str, type[HostChange]] = {}
_Change = TypeVar("_Change", bound=HostChange)


def register(cls: type[_Change]) -> type[_Change]:
    """Make a kind of change known, so that a journal written by another process can be read back."""
    known = _kinds.setdefault(cls.kind, cls)
    if known.__qualname__ != cls.__qualname__:
        raise ValueError(f'two classes for the kind "{cls.kind}": {known.__qualname__} and {cls.__qualname__}')
    _kinds[cls.kind] = cls  # `python -m` loads a module a second time; the later class wins
    return cls


@dataclass(frozen=True)
class _Entry:
    """One intent that is not undone yet."""

    number: int
    line: int
    kind: str
    data: dict[str, object]


class Journal:
    """The journal in one file of JSON lines; every method reads the file anew, nothing is cached."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self, change: HostChange) -> None:
        """Journal a change, make it, verify it.

        On any failure raises GazelledError and leaves the entry pending: `undo_all` takes back a half-made change.
        """
        _, last = self._read()
        number = last + 1
        self._append({"op": "intent", "id": number, "kind": change.kind, "change": change.to_json()})
        try:
            change.apply()
            problem = change.verify()
        except GazelledError:
            raise
        except Exception as error:
            raise GazelledError(f"{change.describe()}: {error or type(error).__name__}") from error
        if problem is not None:
            raise GazelledError(f"{change.describe()}: {problem}")
        self._append({"op": "done", "id": number})

    def pending(self) -> list[HostChange]:
        """Return the changes that are made, or may be, oldest first. An unknown kind raises GazelledError."""
        return [self._change(entry) for entry in self._read()[0]]

    def pending_of(self, cls: type[_Change]) -> list[_Change]:
        """As `pending`, but only the changes of one class: for readers that do not know the other classes."""
        changes = [self._change(entry) for entry in self._read()[0] if entry.kind == cls.kind]
        return [change for change in changes if isinstance(change, cls)]

    def undo_all(self, report: Callable[[str], None]) -> list[str]:
        """Undo every pending change, newest first, telling `report` a line for each.

        A change that cannot be undone stays pending and does not stop the others. Returns the problems, empty when the
        host is as before.
        """
        return self.undo_where(lambda change: True, report)

    def undo_where(self, wanted: Callable[[HostChange], bool], report: Callable[[str], None]) -> list[str]:
        """As `undo_all`, for the pending changes that `wanted` picks."""
        problems: list[str] = []
        entries, _ = self._read()
        left = len(entries)
        for entry in reversed(entries):
            try:
                change = self._change(entry)
                if not wanted(change):
                    continue
                change.undo()
            except Exception as error:
                what = str(error) or type(error).__name__
                problems.append(what if isinstance(error, GazelledError) else f"undo of {entry.kind}: {what}")
                report(f"not undone: {problems[-1]}")
                continue
            with suppress(OSError):  # the file system is full: it stays pending, and undoing it again does nothing
                self._append({"op": "undone", "id": entry.number})
            left -= 1
            report(f"undone: {change.describe()}")
        if left == 0:
            self._remove()
        return problems

    def _change(self, entry: _Entry) -> HostChange:
        cls = _kinds.get(entry.kind)
        if cls is None:
            raise GazelledError(
                f'{self.path}:{entry.line}: unknown kind of host change "{entry.kind}"'
                f" (known: {', '.join(sorted(_kinds))})",
                hint="it was written by another version of gazelled: run that version's `gazelled recover`",
            )
        try:
            return cls.from_json(entry.data)
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(entry.line, f"{entry.kind}: {error!r}") from error

    def _damaged(self, line: int, what: str) -> GazelledError:
        return GazelledError(
            f"{self.path}:{line}: not a journal entry: {what}",
            hint="the lines before it say what was changed; undo those by hand, then delete the file",
        )

    def _read(self) -> tuple[list[_Entry], int]:
        """Return the pending entries in order and the highest number used."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return [], 0
        pending: dict[int, _Entry] = {}
        last = 0
        # What follows the last newline was being written when the writer died: the step it announces never began.
        for number, line in enumerate(text.split(b"\n")[:-1], start=1):
            try:
                record = json.loads(line)
                match record:
                    case {"op": "intent", "id": int(key), "kind": str(kind), "change": dict(data)}:
                        pending[key] = _Entry(key, number, kind, data)
                        last = max(last, key)
                    case {"op": "done", "id": int()}:
                        pass  # for a person who reads the file; undo does not trust it
                    case {"op": "undone", "id": int(key)}:
                        pending.pop(key, None)
                    case _:
                        raise ValueError("expected an intent, done or undone line")
            except ValueError as error:
                raise self._damaged(number, str(error)) from error
        return list(pending.values()), last

    def _append(self, record: dict[str, object]) -> None:
        """Add one line, durable on return; a torn last line is cut off first."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(fd).st_size
            end = os.pread(fd, size, 0).rfind(b"\n") + 1
            if end != size:
                os.ftruncate(fd, end)
            while line:
                written = os.pwrite(fd, line, end)
                end, line = end + written, line[written:]
            os.fsync(fd)
        finally:
            os.close(fd)
        self._sync_directory()

    def _remove(self) -> None:
        try:
            self.path.unlink()
        except FileNotFoundError:
            return
        self._sync_directory()

    def _sync_directory(self) -> None:
        fd = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
