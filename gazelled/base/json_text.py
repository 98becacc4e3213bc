# SPDX-License-Identifier: MulanPSL-2.0
"""JSON as a person likes to read it: a line per key, and a line per object of a list."""

from __future__ import annotations

import json
from collections.abc import Mapping


def json_text(data: Mapping[str, object]) -> str:
    """Return an object as JSON text."""
    parts = []
    for key, value in data.items():
        if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            lines = ",\n".join(f"    {json.dumps(entry)}" for entry in value)
            parts.append(f"  {json.dumps(key)}: [\n{lines}\n  ]")
        else:
            parts.append(f"  {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}"
