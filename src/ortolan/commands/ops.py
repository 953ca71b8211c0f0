"""`ortolan ops`: the operators, versions and types of the prebuilt packages."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

__all__ = ["command", "markdown"]


def command(
    package: Annotated[str, typer.Option(help="full, mobile, a folder, or a config")] = "full",
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="print the page of the documentation")
    ] = False,
) -> None:
    """List the operators that a package has."""
    from ortolan.build.support import package_config, supported, versions

    if as_markdown:
        print(markdown(), end="")
        return
    table = Table()
    for column in ("operator", "versions", "types"):
        table.add_column(column, overflow="fold", no_wrap=column == "operator")
    count = 0
    for operator, types in sorted(
        supported(package_config(package)), key=lambda row: (row[0].domain, row[0].name)
    ):
        name = f"{operator.domain}:{operator.name}" if operator.domain else operator.name
        table.add_row(name, versions(operator), ", ".join(t.onnx_name for t in sorted(types)))
        count += 1
    Console().print(table)
    print(f"{count} entries")


def markdown() -> str:
    """The documentation's page of operators by package; the same for the same catalog."""
    from ortolan.build.support import SETS, supported, versions

    kept = {
        name: {(o.domain, o.name, o.since): types for o, types in supported(make())}
        for name, make in SETS.items()
    }
    rows = [
        "# Operators",
        "",
        "Made by `ortolan ops --markdown` from the catalog. All run on the CPU. Types are those of",
        "the operator's first type variable; half precision is computed in float where no kernel",
        "for it is named.",
        "",
        "| operator | versions | full | mobile |",
        "|---|---|---|---|",
    ]
    for operator, _ in sorted(supported(SETS["full"]()), key=lambda r: (r[0].domain, r[0].name)):
        key = (operator.domain, operator.name, operator.since)
        cells = [
            ", ".join(t.onnx_name for t in sorted(kept[name][key])) or "all"
            if key in kept[name]
            else "-"
            for name in ("full", "mobile")
        ]
        name = f"{operator.domain or 'ai.onnx'}:{operator.name}"
        rows.append(f"| {name} | {versions(operator)} | {cells[0]} | {cells[1]} |")
    return "\n".join(rows) + "\n"
