# SPDX-License-Identifier: MulanPSL-2.0
"""`python -m layout [TREE...]` checks the layout; `--draw` makes its pictures, `--forget` shortens known.txt."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from layout import picture
from layout.rules import KNOWN, TABLE, check, read_table, read_tree


def main(argv: list[str]) -> int:
    """Check, draw or forget; 1 if something is wrong."""
    trees = read_table(TABLE.read_text())
    parser = argparse.ArgumentParser(prog="python -m layout", description=__doc__)
    parser.add_argument("trees", nargs="*", metavar="TREE", help=f"of {', '.join(trees)}; all if none is given")
    parser.add_argument("--draw", action="store_true", help="write the pictures into the documentation")
    parser.add_argument("--forget", action="store_true", help="delete the lines of known.txt that are no longer so")
    options = parser.parse_args(argv)
    unknown = set(options.trees) - trees.keys()
    if unknown:
        parser.error(f"no such tree: {', '.join(sorted(unknown))}")
    chosen = [tree for name, tree in trees.items() if not options.trees or name in options.trees]
    known = [line for line in KNOWN.read_text().splitlines() if line and not line.startswith("#")]
    wrong, met, looked_at = [], set(), 0
    for tree in chosen:
        sources = read_tree(tree)
        looked_at += len(sources)
        problems = list(check(tree, sources))
        met |= {problem.key for problem in problems}
        wrong += [str(problem) for problem in problems if problem.key not in known]
        if len(tree.parts) < 2:
            continue
        drawn = picture.draw(tree, sources)
        if options.draw:
            picture.insert(tree, drawn)
        elif picture.current(tree) != drawn:
            wrong.append(f"{picture.DOCUMENT}: the picture of {tree.name} is not that of the code; make architecture")
    folders = [tree.folder for tree in chosen]
    stale = [line for line in known if line not in met and _lies_in(folders, line)]
    if options.forget:
        _forget(stale)
    else:
        wrong += [f"{KNOWN}: no longer so, delete it (python -m layout --forget): {line}" for line in stale]
    for line in wrong:
        print(line)
    known_ones = f"{len(met & set(known))} known exceptions, {looked_at} files"
    print(f"layout: {len(wrong)} problems, {known_ones}" if wrong else f"layout: clean, {known_ones}")
    return 1 if wrong else 0


def _lies_in(folders: list[Path], line: str) -> bool:
    return any(folder in Path(line.split()[1]).parents for folder in folders)


def _forget(stale: list[str]) -> None:
    kept = [line for line in KNOWN.read_text().splitlines() if line not in stale]
    KNOWN.write_text("\n".join(kept) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
