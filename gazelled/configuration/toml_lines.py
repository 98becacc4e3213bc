# SPDX-License-Identifier: MulanPSL-2.0
"""On which line each key of a TOML document stands: tomllib reads the values but does not tell.

The document is known to be valid (tomllib has read it), so this only finds the ends of things: it need not judge them.
"""

from __future__ import annotations

import re

Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"(?:[^"\\]|\\.)*"')
_LITERAL = re.compile(r"'[^']*'")
_LONG_BASIC = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}(?!")', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''.*?'{3,5}(?!')", re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\n]+")
_BLANK = re.compile(r"[ \t\r]*")
_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_ESCAPE = re.compile(r'\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(["\\bfnrt]))')
_ESCAPED = {'"': '"', "\\": "\\", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def index_lines(text: str) -> dict[Path, int]:
    """Return the line (from 1) of every table, key and array element, by path: ("process", 0, "cpus", 1)."""
    return _Scanner(text).document()


def line_of(lines: dict[Path, int], path: Path) -> int:
    """Return the line of a path, or of the nearest thing around it that has one; 1 if there is none."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


class _Scanner:
    """A position in the text, and what has been found so far."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self.tables: dict[Path, int] = {}  # arrays of tables: how many entries each has so far
        self.line = 1
        self.counted = 0  # the newlines before this position are in `line`

    def document(self) -> dict[Path, int]:
        table: Path = ()
        while self.skip(_SPACE) and self.at < len(self.text):
            if self.text.startswith("[[", self.at):
                table = self.header(2)
            elif self.text[self.at] == "[":
                table = self.header(1)
            else:
                self.pair(table)
        return self.lines

    def skip(self, pattern: re.Pattern[str]) -> bool:
        """Move over what the pattern matches here; always true, so that it can stand in a condition."""
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return True

    def here(self) -> int:
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line

    def note(self, path: Path, line: int) -> None:
        """Remember where a path first appeared, and the paths above it too (dotted keys make tables on their way)."""
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)

    def header(self, brackets: int) -> Path:
        line = self.here()
        self.at += brackets
        keys = self.key()
        self.at += brackets
        path: Path = ()
        for key in keys[:-1]:
            path = self.last((*path, key))
        path = (*path, keys[-1])
        if brackets == 2:
            number = self.tables.get(path, 0)
            self.tables[path] = number + 1
            path = (*path, number)
        else:
            path = self.last(path)
        self.note(path, line)
        self.lines[path] = line  # a table that a longer header has made before stands where its own header is
        return path

    def last(self, path: Path) -> Path:
        """Return the path, entered at its last element if it is an array of tables."""
        return (*path, self.tables[path] - 1) if path in self.tables else path

    def key(self) -> tuple[str, ...]:
        """Read a dotted key and the blanks around it."""
        parts: list[str] = []
        while True:
            self.skip(_BLANK)
            for pattern in (_BARE, _BASIC, _LITERAL):
                if match := pattern.match(self.text, self.at):
                    parts.append(_unquoted(match[0]))
                    self.at = match.end()
                    break
            self.skip(_BLANK)
            if not self.text.startswith(".", self.at):
                return tuple(parts)
            self.at += 1

    def pair(self, table: Path) -> None:
        line = self.here()
        path = (*table, *self.key())
        self.note(path, line)
        self.at += 1  # "="
        self.skip(_BLANK)
        self.value(path)

    def value(self, path: Path) -> None:
        if self.text.startswith("[", self.at):
            self.array(path)
        elif self.text.startswith("{", self.at):
            self.inline_table(path)
        else:
            for pattern in (_LONG_BASIC, _LONG_LITERAL, _BASIC, _LITERAL, _SCALAR):
                if match := pattern.match(self.text, self.at):
                    self.at = match.end()
                    return

    def array(self, path: Path) -> None:
        self.at += 1
        number = 0
        while self.skip(_SPACE) and not self.text.startswith("]", self.at):
            self.note((*path, number), self.here())
            self.value((*path, number))
            number += 1
            self.skip(_SPACE)
            self.at += self.text.startswith(",", self.at)
        self.at += 1

    def inline_table(self, path: Path) -> None:
        self.at += 1
        while self.skip(_SPACE) and not self.text.startswith("}", self.at):
            self.pair(path)
            self.skip(_SPACE)
            self.at += self.text.startswith(",", self.at)
        self.at += 1


def _unquoted(key: str) -> str:
    if key.startswith("'"):
        return key[1:-1]
    if key.startswith('"'):
        return _ESCAPE.sub(lambda m: chr(int(m[1] or m[2], 16)) if m[1] or m[2] else _ESCAPED[m[3]], key[1:-1])
    return key
