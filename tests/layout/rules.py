# SPDX-License-Identifier: MulanPSL-2.0
"""The rules of the layout, and what breaks them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from layout.sources import Arrow, Source, read_source

REPOSITORY = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("table.toml")
KNOWN = Path(__file__).with_name("known.txt")
FILE_MAX = 500
FUNCTION_MAX = 70
CIRCLE_MAX = 3
TOP = "top"  # the part of the files that lie in a tree's own folder


@dataclass(frozen=True)
class Tree:
    """A folder of sources and its parts, the lowest first; each part with those it may use. No parts: only lengths."""

    name: str
    folder: Path
    suffixes: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]]

    def part_of(self, path: Path) -> str:
        """Return the part of a file: its folder, or its own name if the table has that, or TOP."""
        inside = path.relative_to(self.folder)
        if len(inside.parts) > 1:
            return inside.parts[0]
        return inside.stem if inside.stem in self.parts else TOP


@dataclass(frozen=True)
class Problem:
    """One break of a rule; `key` is the line of known.txt that lets it pass."""

    key: str
    where: str
    rule: str

    def __str__(self) -> str:
        return f"{self.where}: {self.rule}"


def read_table(text: str) -> dict[str, Tree]:
    """Read table.toml; ValueError if a part is to use one that does not stand before it."""
    trees = {}
    for name, entry in tomllib.loads(text).items():
        parts: dict[str, tuple[str, ...]] = {}
        for part, uses in entry.get("parts", {}).items():
            unknown = [each for each in uses if each not in parts]
            if unknown:
                raise ValueError(f"{name}.{part}: {', '.join(unknown)} must stand before it: parts go from low to high")
            parts[part] = tuple(uses)
        suffixes = (".py",) if entry["language"] == "python" else (".c", ".h")
        trees[name] = Tree(name, Path(entry["folder"]), suffixes, parts)
    return trees


def read_tree(tree: Tree, repository: Path = REPOSITORY) -> list[Source]:
    """Read all files of a tree; folders named "tests" are none of it."""
    files = sorted(path.relative_to(repository) for path in (repository / tree.folder).rglob("*"))
    return [
        read_source(path, repository, tree.folder)
        for path in files
        if path.suffix in tree.suffixes and "tests" not in path.relative_to(tree.folder).parts
    ]


def check(tree: Tree, sources: list[Source]) -> Iterator[Problem]:
    """Find everything in a tree that breaks a rule."""
    if tree.parts:
        yield from _wrong_parts(tree, sources)
        yield from _wrong_arrows(tree, sources)
        yield from _circles(tree, sources)
    for source in sources:
        yield from _too_long(source)


def _wrong_parts(tree: Tree, sources: list[Source]) -> Iterator[Problem]:
    for part in sorted({tree.part_of(source.path) for source in sources} - tree.parts.keys()):
        folder = tree.folder / part
        yield Problem(f"part {folder}", str(folder), f"no such part in table.toml, [{tree.name}.parts]")


def _wrong_arrows(tree: Tree, sources: list[Source]) -> Iterator[Problem]:
    for source in sources:
        part = tree.part_of(source.path)
        if part not in tree.parts:
            continue
        for arrow in _inside(tree, source):
            other = tree.part_of(arrow.target)
            if other != part and other not in tree.parts[part]:
                may = ", ".join(tree.parts[part]) or "nothing"
                yield Problem(
                    f"arrow {source.path} {arrow.target}",
                    f"{source.path}:{arrow.line}",
                    f"{part} uses {other} ({arrow.target.relative_to(tree.folder)}); it may use: {may}",
                )


def _inside(tree: Tree, source: Source) -> Iterator[Arrow]:
    return (arrow for arrow in source.arrows if tree.folder in arrow.target.parents)


def _room(path: Path) -> Path:
    """Return what counts as one file: a header and the source of the same name are one."""
    return path.with_suffix("") if path.suffix in (".c", ".h") else path


def _circles(tree: Tree, sources: list[Source]) -> Iterator[Problem]:
    """Find files that use each other, unless they are few and a comment in one says why they are one."""
    rooms: dict[Path, set[Path]] = {}
    one_with: dict[Path, set[str]] = {}
    for source in sources:
        room = _room(source.path)
        rooms.setdefault(room, set()).update(_room(arrow.target) for arrow in _inside(tree, source))
        one_with.setdefault(room, set()).update(source.one_with)
    for circle in circles(rooms):
        if len(circle) <= CIRCLE_MAX and any(_explains(room, one_with[room], circle) for room in circle):
            continue
        for room in circle:
            others = [str(each.relative_to(tree.folder)) for each in circle if each != room]
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            yield Problem(
                f"circle {room}",
                str(room),
                f"in a circle with {', '.join(others[:3])}{more}; a circle has at most {CIRCLE_MAX} files, one with a "
                'comment "One with NAME, NAME: reason"',
            )


def _explains(room: Path, one_with: set[str], circle: list[Path]) -> bool:
    """Tell whether the comments of a room name all others of its circle."""
    named = {Path(each).stem for each in one_with}
    return all(other == room or other.stem in named for other in circle)


def circles(graph: Mapping[Path, Iterable[Path]]) -> list[list[Path]]:
    """Return the sets of nodes, two and more, of which each leads to each other."""
    reach = {node: _reached(graph, node) for node in graph}
    seen: set[Path] = set()
    found = []
    for node in sorted(graph):
        if node not in seen:
            circle = [other for other in sorted(reach[node]) if other != node and node in reach.get(other, ())]
            seen.update(circle)
            if circle:
                found.append(sorted([node, *circle]))
    return found


def _reached(graph: Mapping[Path, Iterable[Path]], start: Path) -> set[Path]:
    reached: set[Path] = set()
    ahead = list(graph[start])
    while ahead:
        node = ahead.pop()
        if node not in reached:
            reached.add(node)
            ahead += graph.get(node, ())
    return reached


def _too_long(source: Source) -> Iterator[Problem]:
    if source.length > FILE_MAX:
        yield Problem(f"long {source.path}", str(source.path), f"{source.length} lines, at most {FILE_MAX}")
    for function in source.functions:
        if function.length > FUNCTION_MAX and not function.table:
            yield Problem(
                f"long {source.path} {function.name}",
                f"{source.path}:{function.line}",
                f"{function.name} has {function.length} lines, at most {FUNCTION_MAX} without a comment "
                '"table: reason"',
            )
