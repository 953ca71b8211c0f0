"""The backend interface of onnx: `prepare` a model for a device, `run` it.

`ortolan.backend` has what `onnxruntime.backend` has; the functions are those of `OrtolanBackend`.
"""

from ortolan.backend.backend import (
    OrtolanBackend,
    is_compatible,
    is_opset_supported,
    prepare,
    run,
    supports_device,
)
from ortolan.backend.backend_rep import OrtolanBackendRep

__all__ = [
    "OrtolanBackend",
    "OrtolanBackendRep",
    "is_compatible",
    "is_opset_supported",
    "prepare",
    "run",
    "supports_device",
]
