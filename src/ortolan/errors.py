"""The exceptions of the package: one class per error code, named as onnxruntime names them.

Each is also what Python itself calls such an error, and what onnxruntime raises in its place:
`except ValueError` catches a missing feed, `except RuntimeError` everything.
"""

# ruff: noqa: N818 - programs catch onnxruntime's names, which do not end in Error

from __future__ import annotations

from ortolan.error_codes import Code

__all__ = [
    "Cancelled",
    "Fail",
    "InvalidArgument",
    "InvalidFormat",
    "InvalidGraph",
    "InvalidProtobuf",
    "LimitExceeded",
    "NoModel",
    "NoSuchFile",
    "NotImplemented",
    "OrtolanError",
    "OutOfMemory",
    "RuntimeException",
    "from_code",
]


class OrtolanError(RuntimeError):
    """Anything that Ortolan refuses; the text says what is wrong, where, and what to do.

    Attributes:
        code: the error code, the same in every language.
    """

    code: Code = Code.FAIL


class Fail(OrtolanError):
    """The system refused something."""


class InvalidArgument(OrtolanError, ValueError):
    """A feed, an option, a shape or an attribute is wrong."""

    code = Code.INVALID_ARGUMENT


class NoSuchFile(OrtolanError, FileNotFoundError):
    """A file does not exist or cannot be read."""

    code = Code.NO_SUCHFILE


class NoModel(OrtolanError):
    """The bytes are no model."""

    code = Code.NO_MODEL


class InvalidProtobuf(NoModel):
    """The bytes are no ONNX model; onnxruntime's name."""


class NotImplemented(OrtolanError, NotImplementedError):  # noqa: A001 - as above: use it as errors.NotImplemented
    """An operator, version or type is not in this build."""

    code = Code.NOT_IMPLEMENTED


class InvalidGraph(OrtolanError):
    """The graph contradicts itself."""

    code = Code.INVALID_GRAPH


class RuntimeException(OrtolanError):
    """A run failed for want of something; onnxruntime's name."""


class OutOfMemory(RuntimeException, MemoryError):
    """Memory is out."""

    code = Code.OUT_OF_MEMORY


class LimitExceeded(RuntimeException):
    """A limit set by the caller, or that of a format, was reached."""

    code = Code.LIMIT_EXCEEDED


class Cancelled(Fail):
    """The run was cancelled."""

    code = Code.CANCELLED


class InvalidFormat(Fail):
    """The file is damaged or no ORT format file."""

    code = Code.INVALID_FORMAT


_BY_CODE: dict[Code, type[OrtolanError]] = {
    cls.code: cls
    for cls in (
        Fail,
        InvalidArgument,
        NoSuchFile,
        NoModel,
        NotImplemented,
        InvalidGraph,
        OutOfMemory,
        LimitExceeded,
        Cancelled,
        InvalidFormat,
    )
}


def from_code(code: int, message: str) -> OrtolanError:
    """Returns the exception for an error code of the runtime; an unknown code gives `Fail`.

    Args:
        code: a value of `ortolan.catalog.errors.Code`.
        message: the text.
    """
    known = Code(code) if code in Code._value2member_map_ else Code.FAIL
    return _BY_CODE.get(known, Fail)(message)
