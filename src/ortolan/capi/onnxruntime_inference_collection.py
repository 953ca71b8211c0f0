"""The classes of the Python API under onnxruntime's inner address."""

from ortolan.session import InferenceSession, IOBinding, OrtDevice, OrtValue

__all__ = ["IOBinding", "InferenceSession", "OrtDevice", "OrtValue"]
