"""A dictionary from Python or a mapping from a YAML file -> the texts that a setting holds. Imports no torch.

quota  {"web": 2, "code": 1}    {web: 2, code: 1}
join   {"other": "run2"}        ("other=run2",)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_origin

import yaml

from ladm.settings.fields import Setting


def from_mapping(mapping: Mapping[Any, Any], field: Setting) -> Any:
    """What the field has for the mapping; the mapping itself where the field takes none, to be refused as its type."""
    # What is nested fits no field, and ten lines of YAML aliases can stand for a billion elements.
    if not field.spec.mapping or any(isinstance(value, (list, tuple, dict, set)) for value in mapping.values()):
        return mapping
    if get_origin(field.kind) is tuple:
        return tuple(f"{name}={value}" for name, value in mapping.items())
    return yaml_line(mapping)


def yaml_line(mapping: Mapping[Any, Any]) -> str:
    """The mapping as one line of YAML."""
    # Whatever is no number is left to the check of the weights. Not JSON, whose 1e-05 is no number to YAML.
    plain = {str(name): value if type(value) in (int, float) else str(value) for name, value in mapping.items()}
    return yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf).strip()
