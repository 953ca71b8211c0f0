"""`ortolan selftest`: whether the runtime computes what it should, here or on a device."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ortolan.errors import InvalidArgument, NoSuchFile

__all__ = ["command"]


def command(
    models: Annotated[
        list[Path] | None, typer.Argument(metavar="[MODEL...]", help="models for --kit")
    ] = None,
    library: Annotated[
        Path | None, typer.Option(help="a library that ortolan build wrote for this machine")
    ] = None,
    kit: Annotated[
        Path | None, typer.Option(help="write a folder to take to an Android device")
    ] = None,
    build: Annotated[
        Path | None, typer.Option(help="what ortolan build --target android wrote, for --kit")
    ] = None,
    inputs: Annotated[
        list[Path] | None, typer.Option("--inputs", help=".npz files with inputs for --kit")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="compare what came back into the folder of --kit")
    ] = None,
) -> None:
    """Check the runtime on this machine in every instruction set; or by --kit on a device."""
    if compare is not None:
        _compare(compare)
    elif kit is not None:
        _write_kit(kit, build, models or [], inputs or [])
    else:
        _run(library)


def _run(library: Path | None) -> None:
    if library is not None:
        if not library.is_file():
            raise NoSuchFile(f"{library}: there is no such library")
        os.environ["ORTOLAN_LIBRARY"] = str(library.absolute())
    import ortolan
    from ortolan.selftest import findings

    info = ortolan.runtime_info()
    print(f"{info['library']}: ortolan {info['version']}, {info['instruction_set']}")
    passed = absent = failed = 0
    for found in findings():
        if found.absent:
            absent += 1
            print(f"not in this build: {found.name}, instruction set {found.level}")
        elif found.problem:
            failed += 1
            print(f"FAILED: {found.name}, instruction set {found.level}: {found.problem}")
        else:
            passed += 1
    print(f"{passed} checks passed, {failed} failed, {absent} not in this build")
    if failed or not passed:
        raise typer.Exit(1)


def _write_kit(kit: Path, build: Path | None, models: list[Path], inputs: list[Path]) -> None:
    from ortolan.build.device import write_kit
    from ortolan.build.host import cache_folder
    from ortolan.commands.build import read_arrays

    if build is None:
        raise InvalidArgument("--kit needs --build: what ortolan build --target android wrote")
    abis = write_kit(kit, build, models, cache_folder(), read_arrays(inputs))
    print(f"{kit}: for {', '.join(abis)}. Connect a device and run {kit / 'run.sh'}")


def _compare(folder: Path) -> None:
    from ortolan.build.device import compare_kit

    for abi, check in compare_kit(folder):
        outcome = f"refused its feeds ({check.refused})" if check.refused else f"{check.error:.0e}"
        print(f"{abi}: {check.model}: {outcome}")
