# SPDX-License-Identifier: MulanPSL-2.0
"""Whether a record that was read back from a file is what its class says."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints


@cache
def _hints(kind: type) -> dict[str, object]:
    return get_type_hints(kind)


def check_types(record: object) -> None:
    """TypeError if a field of a dataclass, or of one in it, is of another type than it says.

    For fields of the types that JSON has, tuples of them, literals and dataclasses.
    """
    kind: type = type(record)
    hints = _hints(kind)
    for each in fields(kind):
        value = getattr(record, each.name)
        if not _is(value, hints[each.name]):
            raise TypeError(f"{kind.__name__}.{each.name}: {value!r} is no {hints[each.name]}")


def _is(value: object, wanted: object) -> bool:
    origin = get_origin(wanted)
    if origin in (Union, UnionType):
        return any(_is(value, one) for one in get_args(wanted))
    if origin is Literal:
        return type(value) is str and value in get_args(wanted)
    if origin is tuple:
        return isinstance(value, tuple) and all(_is(one, get_args(wanted)[0]) for one in value)
    if isinstance(wanted, type) and is_dataclass(wanted):
        if type(value) is not wanted:
            return False
        check_types(value)
        return True
    return type(value) is wanted
