# SPDX-License-Identifier: MulanPSL-2.0
"""Every key of a TOML document is found on the line it stands on, however the document is written."""

import tomllib
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from gazelled.configuration.toml_lines import Path, index_lines, line_of

DOCUMENT = """\
# a comment with [brackets] = 1
title = "a # b"   # 2

[stack]           # 4
idle = 'poll'
a.b.c = 1         # 6
a.b."d e" = 2

[[process]]       # 9
cpus = [          # 10
  0,              # 11 ] }
  "]",
  [3,
   4],            # 14
]
text = \"\"\"
[not.a.table]
key = 18 \\"\"\" still
\"\"\"\"
after = 1         # 20

[[process]]       # 22
cpus = '''
]'''
point = { x = 1, "y z" = [1,
  2], w.v = 3 }   # 26
[process.sub]     # 27
key = 2020-01-01 00:00:00
[[process.sub.deep]]
[[process.sub.deep]]
z = 1             # 31
["quo\\u0074ed"]
'a.b' = true      # 33"""

EXPECTED: dict[Path, int] = {
    ("title",): 2,
    ("stack",): 4,
    ("stack", "idle"): 5,
    ("stack", "a"): 6,
    ("stack", "a", "b"): 6,
    ("stack", "a", "b", "c"): 6,
    ("stack", "a", "b", "d e"): 7,
    ("process",): 9,
    ("process", 0): 9,
    ("process", 0, "cpus"): 10,
    ("process", 0, "cpus", 0): 11,
    ("process", 0, "cpus", 1): 12,
    ("process", 0, "cpus", 2): 13,
    ("process", 0, "cpus", 2, 0): 13,
    ("process", 0, "cpus", 2, 1): 14,
    ("process", 0, "text"): 16,
    ("process", 0, "after"): 20,
    ("process", 1): 22,
    ("process", 1, "cpus"): 23,
    ("process", 1, "point"): 25,
    ("process", 1, "point", "x"): 25,
    ("process", 1, "point", "y z"): 25,
    ("process", 1, "point", "y z", 0): 25,
    ("process", 1, "point", "y z", 1): 26,
    ("process", 1, "point", "w"): 26,
    ("process", 1, "point", "w", "v"): 26,
    ("process", 1, "sub"): 27,
    ("process", 1, "sub", "key"): 28,
    ("process", 1, "sub", "deep"): 29,
    ("process", 1, "sub", "deep", 0): 29,
    ("process", 1, "sub", "deep", 1): 30,
    ("process", 1, "sub", "deep", 1, "z"): 31,
    ("quoted",): 32,
    ("quoted", "a.b"): 33,
}


def test_every_way_to_write_a_key_is_found_on_its_line() -> None:
    tomllib.loads(DOCUMENT)
    assert index_lines(DOCUMENT) == EXPECTED


def test_a_file_with_carriage_returns_has_the_same_lines() -> None:
    assert index_lines(DOCUMENT.replace("\n", "\r\n")) == EXPECTED


def test_what_is_missing_is_placed_at_what_surrounds_it() -> None:
    lines = index_lines("\n[stack]\nidle = 1\n")
    assert line_of(lines, ("stack", "spin_us")) == 2
    assert line_of(lines, ("port", "driver")) == 1


_KEYS = st.one_of(st.sampled_from(["a", "b-1", "_c"]), st.text(st.characters(codec="utf-8", exclude_categories=["C"])))
_SCALARS = st.one_of(
    st.integers(-9, 9).map(str), st.sampled_from(["true", "1.5", '"]#"', "'}\"'", '"""\n]\n"""', "'''#\n'''"])
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3).map(lambda each: "[\n" + " # ]\n,".join([*each, ""]) + "]"),
    max_leaves=6,
)


def _quoted(key: str) -> str:
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _paths(value: object, path: Path = ()) -> Iterator[Path]:
    if path:
        yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from _paths(inner, (*path, key))


@given(st.lists(st.tuples(_KEYS, _VALUES, st.sampled_from(["", "\n", "# x\n"])), unique_by=lambda pair: pair[0]))
def test_keys_are_found_where_they_were_written_and_none_is_missed(pairs: list[tuple[str, str, str]]) -> None:
    text, expected = "[[t]]\n", {}
    for key, value, between in pairs:
        text += between
        expected[("t", 0, key)] = text.count("\n") + 1
        text += f"{_quoted(key)} = {value}\n"
    lines = index_lines(text)
    assert {path: lines[path] for path in expected} == expected
    assert set(lines) == set(_paths(tomllib.loads(text)))
