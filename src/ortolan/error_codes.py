"""The error codes of every language binding. Below 100: onnxruntime's, same names and numbers."""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """Result of a call into the runtime."""

    OK = 0
    FAIL = 1
    INVALID_ARGUMENT = 2
    NO_SUCHFILE = 3
    NO_MODEL = 4
    NOT_IMPLEMENTED = 9
    INVALID_GRAPH = 10
    OUT_OF_MEMORY = 100
    LIMIT_EXCEEDED = 101
    CANCELLED = 102
    INVALID_FORMAT = 103


DESCRIPTIONS: dict[Code, str] = {
    Code.OK: "done",
    Code.FAIL: "the system refused something",
    Code.INVALID_ARGUMENT: "a feed, an option, a shape or an attribute is wrong",
    Code.NO_SUCHFILE: "the file does not exist or cannot be read",
    Code.NO_MODEL: "the bytes are no model",
    Code.NOT_IMPLEMENTED: "an operator, version or type is not in this build",
    Code.INVALID_GRAPH: "the graph contradicts itself",
    Code.OUT_OF_MEMORY: "memory is out",
    Code.LIMIT_EXCEEDED: "a limit set by the caller was reached",
    Code.CANCELLED: "the run was cancelled",
    Code.INVALID_FORMAT: "the file is damaged or no ORT format file",
}
