"""`ortolan check`: does a model run on a package or with a config?"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ortolan.commands.common import escape

__all__ = ["command"]


def command(
    model: Annotated[Path, typer.Argument(help="an .onnx or .ort file")],
    package: Annotated[
        str, typer.Option(help="full, mobile, a folder that ortolan build wrote, or a config")
    ] = "full",
    as_json: Annotated[bool, typer.Option("--json", help="print the answer as JSON")] = False,
) -> None:
    """Tell whether a model runs, and if not (exit code 1) what is missing and how to mend it."""
    from ortolan.build.product import read_uses
    from ortolan.build.support import lacks, package_config
    from ortolan.required_ops import from_uses
    from ortolan.required_ops.config import WITHOUT

    uses, unknown, features, nodes = read_uses(model)
    config = package_config(package)
    left_out = sorted(config.without & features)
    missing = lacks(dataclasses.replace(config, without=config.without - features), uses)
    mend = from_uses(missing).text() if missing else ""
    runs = not missing and not unknown and not left_out
    if as_json:
        answer = {
            "model": model.name,
            "package": package,
            "runs": runs,
            "missing": [
                {
                    "domain": use.domain or "ai.onnx",
                    "operator": use.name,
                    "version": use.version,
                    "types": [t.onnx_name for t in use.types],
                }
                for use in missing
            ],
            "unknown": unknown,
            "without": left_out,
            "config": mend.splitlines(),
            "providers": {"CPUExecutionProvider": {"nodes": nodes, "share": 1.0}} if runs else {},
        }
        print(json.dumps(answer, indent=2))
    else:
        lines = [f"Ortolan has no {name}" for name in unknown]
        lines += [f"the package lacks {_text(use)}" for use in missing]
        lines += [
            f"the package has no {name}: take the word out of {WITHOUT} in its config"
            for name in left_out
        ]
        _show(model, package, lines, mend, nodes)
    if not runs:
        raise typer.Exit(1)


def _text(use: object) -> str:
    from ortolan.required_ops import RequiredOperator

    assert isinstance(use, RequiredOperator)
    types = ", ".join(t.onnx_name for t in use.types)
    return f"{use.domain or 'ai.onnx'}:{use.name}, version {use.version}" + (
        f", for {types}" if types else ""
    )


def _show(model: Path, package: str, problems: list[str], mend: str, nodes: int) -> None:
    console = Console(soft_wrap=True, highlight=False)
    if not problems:
        console.print(
            f"{escape(model.name)} runs on {escape(package)}: CPUExecutionProvider takes all "
            f"{nodes} nodes (100 %); there is no other provider yet"
        )
        return
    console.print(f"{escape(model.name)} does not run on {escape(package)}")
    for problem in problems:
        console.print(f"  {escape(problem)}")
    if mend:
        console.print("Lines for the config of a build that has them:")
        print(mend, end="")
