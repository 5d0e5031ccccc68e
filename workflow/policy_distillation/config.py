"""Whether a configuration has the right keys and kinds of values.

Imports nothing heavy: every cluster job parses the workflow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

SCHEMA = Path(__file__).resolve().parent / "schemas" / "config.schema.yaml"


KINDS = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "object": "a mapping",
    "string": "text",
}
"""What JSON Schema's types are called in a configuration."""


class ConfigError(ValueError):
    """One line for the user: the key, its value and what is allowed."""


# JSON Schema takes 3.0 for an integer, which Python's range does not, and infinity for a number.
_TYPES = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
    {
        "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
        "number": lambda _, value: (
            isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        ),
    }
)
_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=_TYPES)


def check_schema(config: Mapping[str, Any]) -> None:
    """Raise ConfigError unless ``config`` has the keys and the kinds of values that the schema allows."""
    _check_keys("", config)
    schema = yaml.safe_load(SCHEMA.read_text())
    errors = _Validator(schema).iter_errors(dict(config))
    error = jsonschema.exceptions.best_match(errors)
    if error is not None:
        raise ConfigError(schema_refusal(error))


def _check_keys(where: str, value: Any) -> None:
    """YAML reads the keys 1, yes and off as a number and as truth values, which name nothing here."""
    if isinstance(value, list):
        for index, entry in enumerate(value):
            _check_keys(f"{where}[{index}]", entry)
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{where or 'config'}: the key {key!r} is not text; put it in quotes")
            _check_keys(f"{where}.{key}" if where else key, entry)


def schema_refusal(error: jsonschema.ValidationError, root: str = "config") -> str:
    """One line: the key, its value and what is allowed. ``root`` is what the whole file is called."""
    key = root
    for part in error.absolute_path:
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
    key = key.removeprefix(f"{root}.")
    value, rule = error.instance, error.validator_value
    if error.validator == "additionalProperties" and rule is False:
        allowed = sorted(error.schema.get("properties", {}))
        unknown = sorted(set(value) - set(allowed))[0]
        return f"{key}: unknown key {unknown!r} (value {value[unknown]!r}); allowed: {', '.join(allowed)}"
    if error.validator == "required":
        missing = sorted(set(rule) - set(value))[0]
        return f"{key}: the key {missing!r} is missing; required: {', '.join(rule)}"
    kinds = [rule] if isinstance(rule, str) else rule if isinstance(rule, list) else []
    limits = {
        "enum": ", ".join("null" if kind is None else str(kind) for kind in kinds),
        "type": " or ".join(KINDS.get(kind, str(kind)) for kind in kinds),
        "minimum": f"{rule} or more",
        "maximum": f"at most {rule}",
        "exclusiveMinimum": f"more than {rule}",
        "exclusiveMaximum": f"less than {rule}",
        "pattern": error.schema.get("description", f"text that matches {rule}"),
        "minItems": _entries("at least", rule, error.schema.get("maxItems")),
        "minProperties": _entries("at least", rule),
        "minLength": f"at least {rule} characters",
        "maxLength": f"at most {rule} characters",
        "maxItems": _entries("at most", rule, error.schema.get("minItems")),
        "uniqueItems": "no entry twice",
    }
    if error.validator == "type" and isinstance(value, str) and (number := _number(value)) is not None:
        return f"{key}: {value!r} is text, not a number; write {number!r}, without quotes"
    shown = "null" if value is None else repr(value)
    return f"{key}: {shown} is not allowed; allowed: {limits.get(str(error.validator), error.message)}"


def _entries(bound: str, count: Any, other: Any = None) -> str:
    return f"{'exactly' if count == other else bound} {count} {'entry' if count == 1 else 'entries'}"


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None
