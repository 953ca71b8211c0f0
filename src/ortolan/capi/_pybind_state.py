"""The same names under the other address that onnxruntime gives them."""

from ortolan.capi.onnxruntime_pybind11_state import *  # noqa: F403 - that is what it is for
