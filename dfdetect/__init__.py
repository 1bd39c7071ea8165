"""Detects human heads in images and estimates whether each one is a deepfake."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfdetect.export.detector_api import Detector as Detector
    from dfdetect.export.detector_api import load as load

__version__ = "0.1.0"

# Imported when they are asked for first, as TensorFlow takes seconds.
_LAZY = ("Detector", "load")


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    importlib.import_module("dfdetect.export.runtime").set_variables()
    return getattr(importlib.import_module("dfdetect.export.detector_api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
