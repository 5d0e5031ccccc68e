"""Mappings: a network described by its owner, in YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from ..config import ConfigError, schema_refusal
from ..overlays import read
from ..readouts import Support
from .containers import AgentImportError
from .declarations import Convolution, Declaration, Dense, Head, Stream

SCHEMA = Path(__file__).resolve().parents[1] / "schemas" / "mapping.schema.yaml"


def read_declaration(path: Path) -> tuple[Declaration, list[int] | None]:
    """A mapping in YAML: the network, and the ALE ids of its outputs where the file says so. Raises AgentImportError.

    ``schemas/mapping.schema.yaml`` describes it.
    """
    try:
        content = read(path)
    except ConfigError as error:
        raise AgentImportError(str(error)) from None
    schema = jsonschema.Draft202012Validator(yaml.safe_load(SCHEMA.read_text()))
    refused = jsonschema.exceptions.best_match(schema.iter_errors(content))
    if refused is not None:
        raise AgentImportError(f"{path}: {schema_refusal(refused, 'mapping')}")
    actions, readout = content.pop("actions", None), content.pop("readout", {})
    try:
        declaration = Declaration(
            **{
                **content,
                "convolutions": tuple(Convolution(**layer) for layer in content["convolutions"]),
                "hidden": tuple(Dense(**layer) for layer in content["hidden"]),
                "value": _stream(content.get("value")),
                "advantage": _stream(content.get("advantage")),
                "head": _head(readout),
                "ignore": tuple(content.get("ignore", ())),
                "kind": "a network that a mapping describes",
            }
        )
        declaration.network  # noqa: B018 (do the convolutions fit the image?)
    except ValueError as error:
        raise AgentImportError(f"{path}: {error}") from None
    return declaration, actions


def _stream(entry: Mapping[str, Any] | None) -> Stream | None:
    if entry is None:
        return None
    reads = entry.get("reads")
    return Stream(entry["output"], tuple(Dense(**layer) for layer in entry.get("hidden", ())), reads and tuple(reads))


def _head(entry: Mapping[str, Any]) -> Head:
    kind = entry.get("kind", "plain")
    support = entry.get("support")
    if (kind == "categorical") != (isinstance(support, str | Mapping)):
        raise AgentImportError(
            "`support`, the key of a tensor or lowest, highest and atoms, belongs to readout: {kind: categorical}"
        )
    if kind != "quantiles" and {"order", "quantiles"} & set(entry):
        raise AgentImportError("`order` and `quantiles` belong to readout: {kind: quantiles}")
    if kind == "quantiles":
        if "quantiles" not in entry:
            raise AgentImportError("readout: {kind: quantiles} needs `quantiles`, how many an action has, such as 200")
        return Head(kind, entry.get("order", "action_major"), quantiles=entry["quantiles"])
    if isinstance(support, str):
        return Head(kind, support_key=support)
    return Head(kind, support=Support(**support) if support else None)
