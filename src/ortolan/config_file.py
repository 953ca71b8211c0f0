"""The config of required operators beside converted models, in onnxruntime's format."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ortolan.errors import Fail
from ortolan.ortformat import describe, read

__all__ = ["config_text", "write_config"]


def config_text(files: Iterable[Path]) -> str:
    """The operators that ORT format files need: lines of a domain, a version and its operators.

    Args:
        files: what is converted together is built together.
    """
    needed: dict[tuple[str, int], set[str]] = {}
    names = []
    for file in files:
        names.append(file.name)
        for operator in describe(read(file.read_bytes())).operators:
            key = (operator.domain or "ai.onnx", operator.since_version)
            needed.setdefault(key, set()).add(operator.name)
    lines = [f"# Operators that these models need: {', '.join(sorted(names))}"]
    for (domain, version), operators in sorted(needed.items()):
        lines.append(f"{domain};{version};{','.join(sorted(operators))}")
    return "\n".join(lines) + "\n"


def write_config(path: Path, files: Iterable[Path]) -> None:
    """Writes the config of files.

    Raises:
        ortolan.errors.Fail: the file cannot be written.
    """
    try:
        path.write_text(config_text(files), encoding="utf-8")
    except OSError as error:
        raise Fail(f"{path}: cannot be written ({error.strerror or error})") from error
