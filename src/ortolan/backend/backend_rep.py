"""A model that is ready to run, as onnx's backend interface has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx.backend.base import BackendRep

from ortolan.errors import InvalidArgument
from ortolan.session import InferenceSession, RunOptions

__all__ = ["OrtolanBackendRep"]


class OrtolanBackendRep(BackendRep):
    """Wraps a session.

    Args:
        session: of the model.
    """

    def __init__(self, session: InferenceSession) -> None:
        self._session = session

    def run(self, inputs: Any, **kwargs: Any) -> list[Any]:  # type: ignore[override]
        """Computes all outputs.

        Args:
            inputs: a value for each input in a list, or the value of the only one.
            kwargs: attributes of `ortolan.RunOptions`.

        Raises:
            ortolan.errors.OrtolanError: a value is wrong, or the computation failed.
        """
        options = RunOptions()
        for name, value in kwargs.items():
            if not hasattr(options, name):
                raise InvalidArgument(f"there is no option {name!r} of a run")
            setattr(options, name, value)
        arguments = self._session.get_inputs()
        values: Sequence[Any] = [inputs] if isinstance(inputs, np.ndarray) else inputs
        if not isinstance(inputs, np.ndarray) and len(arguments) == 1 and len(values) != 1:
            values = [inputs]
        if len(values) != len(arguments):
            raise InvalidArgument(f"the model has {len(arguments)} inputs, not {len(values)}")
        feed = {a.name: value for a, value in zip(arguments, values, strict=True)}
        return self._session.run(None, feed, options)
