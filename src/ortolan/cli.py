"""The command line. Each command is a module of `ortolan.commands`; this file is their list.

What a user did wrong is told in one line; anything else is a defect and keeps its traceback.
"""

from __future__ import annotations

import importlib
import io
import sys

import typer

from ortolan.commands.common import complain
from ortolan.errors import OrtolanError

__all__ = ["COMMANDS", "app", "main"]

# In the order of the help. The module is named like the command, with _ for -.
COMMANDS = (
    "convert",
    "inspect",
    "run",
    "bench",
    "demo",
    "config",
    "build",
    "check",
    "ops",
    "package",
    "explain",
    "selftest",
)

app = typer.Typer(
    name="ortolan",
    help="Converts ONNX models to ORT format files and runs them in a small runtime.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

for _name in COMMANDS:
    _module = importlib.import_module(f"ortolan.commands.{_name.replace('-', '_')}")
    app.command(_name)(_module.command)


def main() -> None:
    """Entry point of the command `ortolan`; a refusal ends it with status 1 and one line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files need not be text, nor in the terminal's alphabet.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except OrtolanError as error:
        complain(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
