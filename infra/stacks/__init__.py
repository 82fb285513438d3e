"""The CloudFormation templates, as text and as plain data."""

from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).resolve().parent


def text(name: str) -> str:
    """Return the template `name` as CloudFormation takes it."""
    return (FOLDER / f"{name}.yaml").read_text()


def load(name: str) -> dict[str, Any]:
    """Return the template `name` as data. Short tags become their long form: `!Ref X` is `{"Ref": "X"}`."""
    loaded: dict[str, Any] = yaml.load(text(name), Loader=_Loader)  # noqa: S506 - a SafeLoader with more tags
    return loaded


class _Loader(yaml.SafeLoader):
    """A SafeLoader of our own, so that only templates know the tags below."""


def _tag(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    else:
        raise TypeError(f"!{suffix} on a node of type {type(node).__name__}")
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _tag)
