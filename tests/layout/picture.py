# SPDX-License-Identifier: MulanPSL-2.0
"""The parts of a tree and their arrows as a mermaid graph, and where that stands in the documentation."""

from __future__ import annotations

from pathlib import Path

from layout.rules import REPOSITORY, Tree
from layout.sources import Source

DOCUMENT = REPOSITORY / "docs" / "explanation" / "architecture.md"


def arrows_between(tree: Tree, sources: list[Source]) -> dict[str, set[str]]:
    """Return for each part the parts it uses, in the order of the table."""
    parts: dict[str, set[str]] = {part: set() for part in tree.parts}
    for source in sources:
        part = tree.part_of(source.path)
        targets = (arrow.target for arrow in source.arrows if tree.folder in arrow.target.parents)
        parts.setdefault(part, set()).update(tree.part_of(target) for target in targets)
    return {part: used - {part} for part, used in parts.items()}


def draw(tree: Tree, sources: list[Source]) -> str:
    """Return the graph. An arrow is left out if a longer way shows it; one against the table is dotted."""
    arrows = arrows_between(tree, sources)
    order = list(tree.parts)
    allowed = {part: arrows[part] & set(tree.parts[part]) for part in order}
    below: dict[str, set[str]] = {}
    for part in order:
        below[part] = allowed[part].union(*(below[each] for each in allowed[part]))
    lines = ["```mermaid", "graph TD"]
    met = {part for part, used in arrows.items() if used}.union(*arrows.values())
    lines += [f"    {_id(part)}[{part}]" for part in reversed(order) if part in met]
    for part in reversed(order):
        direct = [each for each in order if each in allowed[part]]
        shown = [each for each in direct if not any(each in below[other] for other in direct)]
        lines += [f"    {_id(part)} --> {_id(each)}" for each in reversed(shown)]
        lines += [f"    {_id(part)} -.-> {_id(each)}" for each in sorted(arrows[part] - set(tree.parts[part]))]
    return "\n".join([*lines, "```"])


def _id(part: str) -> str:
    return f"p_{part.strip('_')}"


def _markers(tree: Tree) -> tuple[str, str]:
    return f"<!-- layout {tree.name}: made by `make architecture` -->", f"<!-- end of layout {tree.name} -->"


def current(tree: Tree, document: Path = DOCUMENT) -> str:
    """Return what stands in the document between a tree's markers; ValueError if they are not there."""
    text = document.read_text()
    begin, end = _markers(tree)
    if begin not in text or end not in text:
        raise ValueError(f"{document}: no {begin}")
    return text[text.index(begin) + len(begin) : text.index(end)].strip()


def insert(tree: Tree, picture: str, document: Path = DOCUMENT) -> None:
    """Write a tree's picture into the document."""
    old = current(tree, document)
    begin, end = _markers(tree)
    text = document.read_text()
    before, after = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    if old != picture:
        document.write_text(f"{before}\n{picture}\n{after}")
