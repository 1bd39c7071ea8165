"""Figures as JSON."""

import json
import math
from typing import Any


def to_json(figures: Any) -> str:
    """Nested dicts and lists as indented JSON, with null for NaN, which it lacks."""
    return json.dumps(_without_nan(figures), indent=2, allow_nan=False)


def _without_nan(figures: Any) -> Any:
    if isinstance(figures, dict):
        return {name: _without_nan(value) for name, value in figures.items()}
    if isinstance(figures, (list, tuple)):
        return [_without_nan(value) for value in figures]
    return None if isinstance(figures, float) and math.isnan(figures) else figures
