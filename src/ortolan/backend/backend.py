"""onnx's backend interface over sessions."""

from __future__ import annotations

import os
from typing import Any

import onnx
from onnx.backend.base import Backend

from ortolan import errors
from ortolan.backend.backend_rep import OrtolanBackendRep
from ortolan.errors import InvalidArgument, OrtolanError
from ortolan.session import InferenceSession, SessionOptions

__all__ = ["OrtolanBackend"]


class OrtolanBackend(Backend):
    """Runs models on the CPU."""

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether it is the CPU, alone or with a number: "CPU:0"."""
        return device.split(":")[0].upper() == "CPU"

    @classmethod
    def is_opset_supported(cls, model: onnx.ModelProto) -> tuple[bool, str]:
        """Whether all opsets of a model are known, and why not."""
        from ortolan.importer import load

        try:
            load(model)
        except OrtolanError as error:
            return False, str(error)
        return True, ""

    @classmethod
    def is_compatible(cls, model: Any, device: str | None = None, **kwargs: Any) -> bool:
        """Whether a model can be run on a device.

        Args:
            model: what `prepare` takes.
            device: None: the CPU.
            kwargs: for `prepare`.
        """
        try:
            cls.prepare(model, device, **kwargs)
        except OrtolanError:
            return False
        return True

    @classmethod
    def prepare(cls, model: Any, device: str | None = None, **kwargs: Any) -> OrtolanBackendRep:
        """Makes a model ready to run.

        Args:
            model: a message, the path or the bytes of a model, a session, or what this returns.
            device: None: the CPU.
            kwargs: attributes of `ortolan.SessionOptions`.

        Raises:
            ortolan.errors.OrtolanError: the model or an option is wrong, or it is another device.
        """
        if device is not None and not cls.supports_device(device):
            raise errors.NotImplemented(f"there is no device {device!r} in this package: use 'CPU'")
        if isinstance(model, OrtolanBackendRep):
            return model
        if isinstance(model, InferenceSession):
            return OrtolanBackendRep(model)
        if isinstance(model, onnx.ModelProto):
            model = model.SerializeToString()
        if not isinstance(model, str | bytes | os.PathLike):
            raise InvalidArgument(f"a {type(model).__name__} is no model")
        options = SessionOptions()
        for name, value in kwargs.items():
            if not hasattr(options, name):
                raise InvalidArgument(f"there is no option {name!r} of a session")
            setattr(options, name, value)
        return OrtolanBackendRep(InferenceSession(model, options))

    @classmethod
    def run_model(  # type: ignore[override]
        cls, model: Any, inputs: Any, device: str | None = None, **kwargs: Any
    ) -> list[Any]:
        """Prepares a model and computes all its outputs; see `prepare` and the rep's `run`."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: Any, inputs: Any, device: str | None = None, outputs_info: Any = None,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Not supported.

        Raises:
            ortolan.errors.NotImplemented: always.
        """
        raise errors.NotImplemented("a node alone cannot be run: make a model of it")


is_compatible = OrtolanBackend.is_compatible
is_opset_supported = OrtolanBackend.is_opset_supported
prepare = OrtolanBackend.prepare
run = OrtolanBackend.run_model
supports_device = OrtolanBackend.supports_device
