# SPDX-License-Identifier: MulanPSL-2.0
"""The layout test finds a wrong include and a wrong import, in each direction, and every other break of its rules."""

from __future__ import annotations

from pathlib import Path

import pytest
from layout import picture
from layout.rules import Tree, check, read_table, read_tree

TABLE = """
[house]
language = "python"
folder = "house"
[house.parts]
base = []
upper = ["base"]
roof = ["base", "upper"]

[worker]
language = "c"
folder = "native/worker"
[worker.parts]
core = []
net = ["core"]
top = ["core", "net"]
"""
CLEAN = {
    "house/base/words.py": "import os\n",
    "house/upper/__init__.py": "",
    "house/upper/room.py": "from house.base import words\n",
    "house/roof.py": "from house.upper.room import words\n",
    "native/include/gazelle/abi.h": "",
    "native/worker/core/log.h": "",
    "native/worker/core/log.c": '#include "core/log.h"\n',
    "native/worker/net/frame.h": '#include <gazelle/abi.h>\n#include "core/log.h"\n',
    "native/worker/main.c": '#include "net/frame.h"\n#include "core/log.h"\n',
    "native/worker/tests/test_log.c": '#include "core/log.h"\n#include "net/frame.h"\n',
}


@pytest.fixture
def trees() -> dict[str, Tree]:
    return read_table(TABLE)


def problems(root: Path, tree: Tree, **changed: str) -> list[str]:
    files = {**CLEAN, **{name.replace("__", "/").replace("_DOT_", "."): text for name, text in changed.items()}}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return [str(problem) for problem in check(tree, read_tree(tree, root))]


def test_what_keeps_to_the_table_is_clean(tmp_path: Path, trees: dict[str, Tree]) -> None:
    assert problems(tmp_path, trees["house"]) == []
    assert problems(tmp_path, trees["worker"]) == []


@pytest.mark.parametrize(
    "text",
    [
        "import os\n\nfrom house.upper import room\n",
        "import os\n\nimport house.upper.room\n",
        "def late() -> None:\n    pass\n    from house.upper.room import words\n",
        "if TYPE_CHECKING:\n    pass\n    from house.upper import room\n",
    ],
)
def test_an_import_upwards_is_named(tmp_path: Path, trees: dict[str, Tree], text: str) -> None:
    (found,) = [
        line for line in problems(tmp_path, trees["house"], house__base__words_DOT_py=text) if "circle" not in line
    ]
    assert found == "house/base/words.py:3: base uses upper (upper/room.py); it may use: nothing"


def test_a_file_of_the_top_is_a_part_too(tmp_path: Path, trees: dict[str, Tree]) -> None:
    text = "from house import roof\n"
    found = problems(tmp_path, trees["house"], house__upper__other_DOT_py=text)
    assert found == ["house/upper/other.py:1: upper uses roof (roof.py); it may use: base"]


@pytest.mark.parametrize("include", ['#include "net/frame.h"', '#  include "../net/frame.h"'])
def test_an_include_upwards_is_named(tmp_path: Path, trees: dict[str, Tree], include: str) -> None:
    text = f"#include <stdio.h>\n{include}\n"
    (found,) = problems(tmp_path, trees["worker"], native__worker__core__clock_DOT_c=text)
    assert found.startswith("native/worker/core/clock.c:2: core uses net (")
    assert found.endswith("net/frame.h); it may use: nothing")


def test_a_folder_that_the_table_does_not_have_is_named(tmp_path: Path, trees: dict[str, Tree]) -> None:
    (found,) = problems(tmp_path, trees["worker"], native__worker__cellar__x_DOT_c="")
    assert found == "native/worker/cellar: no such part in table.toml, [worker.parts]"


def test_the_table_has_no_circle() -> None:
    with pytest.raises(ValueError, match=r"house\.base: upper must stand before it"):
        read_table(
            '[house]\nlanguage = "python"\nfolder = "house"\n[house.parts]\nbase = ["upper"]\nupper = ["base"]\n'
        )


def circle_of(size: int, comment: str) -> dict[str, str]:
    texts = {f"native__worker__net__f{i}_DOT_h": f'#include "net/f{(i + 1) % size}.h"\n' for i in range(size)}
    texts["native__worker__net__f0_DOT_c"] = f'{comment}\n#include "net/f0.h"\n'
    return texts


def test_a_circle_of_files_needs_a_reason(tmp_path: Path, trees: dict[str, Tree]) -> None:
    found = problems(tmp_path, trees["worker"], **circle_of(3, "/* One with f1.h: and not with f2. */"))
    assert len(found) == 3
    assert found[0].startswith("native/worker/net/f0: in a circle with net/f1, net/f2;")
    assert problems(tmp_path, trees["worker"], **circle_of(3, "/* One with f1, f2: a reason. */")) == []


def test_a_circle_of_four_has_no_excuse(tmp_path: Path, trees: dict[str, Tree]) -> None:
    assert len(problems(tmp_path, trees["worker"], **circle_of(4, "/* One with f1, f2, f3: a reason. */"))) == 4


def test_what_is_too_long_is_named_unless_it_is_a_table(tmp_path: Path, trees: dict[str, Tree]) -> None:
    body = "\tx();\n" * 69
    text = f"static int long_one(int x,\n\t\tint y)\n{{\n{body}}}\n\nint\tv;\n" + "\n" * 430
    found = problems(tmp_path, trees["worker"], native__worker__net__a_DOT_c=text)
    assert found == [
        "native/worker/net/a.c: 505 lines, at most 500",
        'native/worker/net/a.c:1: long_one has 73 lines, at most 70 without a comment "table: reason"',
    ]
    table = "/* table: one line per call */\n" + text[: -430 + 1]
    assert problems(tmp_path, trees["worker"], native__worker__net__a_DOT_c=table) == []
    python = "def long_one() -> None:\n" + "    x()\n" * 70
    (found_python,) = problems(tmp_path, trees["house"], house__base__a_DOT_py=python)
    assert found_python.startswith("house/base/a.py:1: long_one has 71 lines")


def test_of_a_tree_without_parts_only_lengths_count(tmp_path: Path) -> None:
    (tests,) = read_table('[tests]\nlanguage = "c"\nfolder = "native/worker/tests"\n').values()
    assert problems(tmp_path, tests) == []
    (found,) = problems(tmp_path, tests, native__worker__tests__test_log_DOT_c="\n" * 501)
    assert found == "native/worker/tests/test_log.c: 501 lines, at most 500"


def test_the_picture_shows_each_arrow_once_and_wrong_ones_dotted(tmp_path: Path, trees: dict[str, Tree]) -> None:
    assert problems(tmp_path, trees["house"], house__base__odd_DOT_py="from house import roof\n")
    drawn = picture.draw(trees["house"], read_tree(trees["house"], tmp_path))
    assert [line.strip() for line in drawn.splitlines() if "->" in line] == [
        "p_roof --> p_upper",
        "p_upper --> p_base",
        "p_base -.-> p_roof",
    ]
