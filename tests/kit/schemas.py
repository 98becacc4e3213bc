# SPDX-License-Identifier: MulanPSL-2.0
"""What commands print as JSON, against the schemas in docs/reference, which are made from the types of the code.

`PYTHONPATH=tests python -m kit.schemas` writes them.
"""

from __future__ import annotations

import json
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import BaseModel, ConfigDict, create_model

from gazelled.observe import connections
from kit.lab import REPOSITORY

SCHEMAS = {"connections": connections.Report}


def _model(typed: Any) -> Any:
    """Return the model of a TypedDict, or of a list of one; anything else as it is."""
    if get_origin(typed) is list and is_typeddict(get_args(typed)[0]):
        return list[_model(get_args(typed)[0])]  # type: ignore[misc]
    if not is_typeddict(typed):
        return typed
    fields: Any = {key: (_model(hint), ...) for key, hint in get_type_hints(typed).items()}
    return create_model(typed.__name__, __config__=ConfigDict(extra="forbid"), __doc__=typed.__doc__, **fields)


def text(name: str) -> str:
    """Return a schema as its file has it."""
    model: type[BaseModel] = _model(SCHEMAS[name])
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    return json.dumps(made, indent=1) + "\n"


def valid(name: str, said: str) -> Any:
    """Return what was printed; an error if it is not as the schema says."""
    model: type[BaseModel] = _model(SCHEMAS[name])
    model.model_validate_json(said, strict=True)
    return json.loads(said)


if __name__ == "__main__":
    for _name in SCHEMAS:
        (REPOSITORY / f"docs/reference/{_name}.schema.json").write_text(text(_name))
