# SPDX-License-Identifier: MulanPSL-2.0
"""A record of a file has the types its class says, or is none."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest

from gazelled.base.typed import check_types


@dataclass(frozen=True)
class Inner:
    number: int


@dataclass(frozen=True)
class Record:
    text: str = "a"
    number: int = 1
    flag: bool = True
    perhaps: int | None = None
    kind: Literal["a", "b"] = "a"
    many: tuple[str | int, ...] = ("x", 1)
    inner: tuple[Inner, ...] = (Inner(1),)


def test_what_a_class_says_is_taken() -> None:
    check_types(Record())
    some = Record(perhaps=3, kind="b", many=(), inner=())
    check_types(some)
    assert some.perhaps == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", 1),
        ("text", None),
        ("number", True),
        ("number", 1.0),
        ("flag", 1),
        ("perhaps", "1"),
        ("kind", "c"),
        ("kind", []),
        ("many", ["x"]),
        ("many", (None,)),
        ("inner", ({"number": 1},)),
        ("inner", (Inner("1"),)),  # type: ignore[arg-type]
    ],
)
def test_anything_else_is_not(field: str, value: Any) -> None:
    with pytest.raises(TypeError):
        check_types(replace(Record(), **{field: value}))
