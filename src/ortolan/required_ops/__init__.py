"""Which operators, versions and types models need, and the selection of kernels from it.

`models` finds what a model needs; `config` is what a reduced build keeps, in onnxruntime's file
format; `reading` and `selection` go from the file to it and from it to kernels.
"""

from __future__ import annotations

from ortolan.required_ops.config import GENERAL, Config, ConfigError, TypeUse, VariantUse
from ortolan.required_ops.models import RequiredOperator, absent_features, required_operators
from ortolan.required_ops.reading import parse_config, read_config
from ortolan.required_ops.selection import (
    from_uses,
    minimise,
    missing,
    selector,
    variant_selector,
)

__all__ = [
    "GENERAL",
    "Config",
    "ConfigError",
    "RequiredOperator",
    "TypeUse",
    "VariantUse",
    "absent_features",
    "from_uses",
    "minimise",
    "missing",
    "parse_config",
    "read_config",
    "required_operators",
    "selector",
    "variant_selector",
]
