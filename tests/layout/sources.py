# SPDX-License-Identifier: MulanPSL-2.0
"""Reads a source file as the layout test sees it: what it uses and where, its functions, its comments."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_INCLUDE = re.compile(r'\s*#\s*include\s+(?:"([^"]+)"|<(gazelle/[^>]+)>)')
_FUNCTION = re.compile(r"(\w+)\s*\(")
_TABLE = re.compile(r"(?:#|/\*|//|^\s*\*).*\btable: \S")
_ONE_WITH = re.compile(r"(?:#|/\*|//|^\s*\*)\s*One with ([\w./, ]+?): \S")


@dataclass(frozen=True)
class Arrow:
    """One include or import: the file it names, and the line it stands on."""

    line: int
    target: Path


@dataclass(frozen=True)
class Function:
    """A function; `table` is set if a comment says that it is long because it is a table."""

    name: str
    line: int
    length: int
    table: bool


@dataclass(frozen=True)
class Source:
    """One file; `one_with` are the file names a comment "One with NAME, NAME: reason" gives."""

    path: Path
    length: int
    arrows: tuple[Arrow, ...]
    functions: tuple[Function, ...]
    one_with: frozenset[str]


def read_source(path: Path, repository: Path, folder: Path) -> Source:
    """Read a file of the tree in `folder`; both paths lie below `repository`."""
    text = (repository / path).read_text()
    lines = text.splitlines()
    if path.suffix == ".py":
        module = ast.parse(text, str(path))
        arrows, functions = _imports(module, repository, folder), _python_functions(module, lines)
    else:
        arrows, functions = _includes(lines, path, repository, folder), _c_functions(lines)
    one_with = {name.strip() for line in lines for found in _ONE_WITH.findall(line) for name in found.split(",")}
    return Source(path, len(lines), tuple(arrows), tuple(functions), frozenset(one_with))


def _includes(lines: list[str], path: Path, repository: Path, folder: Path) -> Iterator[Arrow]:
    """Find the included files of the project; what is in no tree of ours is the compiler's to find."""
    for number, line in enumerate(lines, 1):
        if found := _INCLUDE.match(line):
            name = found[1] or found[2]
            for place in (path.parent, folder, Path("native/include")):
                if (repository / place / name).is_file():
                    yield Arrow(number, Path(os.path.normpath(place / name)))
                    break


def _imports(module: ast.Module, repository: Path, folder: Path) -> Iterator[Arrow]:
    """Find the imported modules of the tree, those within functions and for types only included."""
    package = folder.name
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            names = [f"{node.module}.{each.name}" for each in node.names]
        elif isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        else:
            continue
        targets = {_module_file(name, repository, folder) for name in names if name.split(".")[0] == package}
        for target in sorted(targets):
            yield Arrow(node.lineno, target)


def _module_file(name: str, repository: Path, folder: Path) -> Path:
    """Return the file of a module, or of the module that a name is taken from."""
    path = folder.parent.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py", path.parent.with_suffix(".py")):
        if (repository / candidate).is_file():
            return candidate
    return path.parent / "__init__.py"


def _python_functions(module: ast.Module, lines: list[str]) -> Iterator[Function]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            last = node.end_lineno or node.lineno
            table = any(_TABLE.search(line) for line in lines[max(0, node.lineno - 4) : last])
            yield Function(node.name, node.lineno, last - node.lineno + 1, table)


def _c_functions(lines: list[str]) -> Iterator[Function]:
    """Find the functions of a file in our format: their braces stand alone in the first column."""
    start: int | None = None
    for number, line in enumerate(lines):
        if line == "{":
            start = number
            while start > 0 and lines[start - 1] and lines[start - 1][0] not in "}#/" and lines[start - 1][:2] != " *":
                start -= 1
        elif line == "}" and start is not None:
            name = _FUNCTION.search(" ".join(lines[start:number]))
            table = any(_TABLE.search(each) for each in lines[max(0, start - 4) : number])
            yield Function(name[1] if name else "?", start + 1, number - start + 1, table)
            start = None
