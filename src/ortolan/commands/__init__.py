"""The commands of `ortolan`, one module each: its function `command` is what typer calls.

`ortolan/cli.py` lists them. A module imports what it needs when its command runs, for the help
must wait neither for ONNX nor for numpy. What a user did wrong is raised as an `OrtolanError`.
"""
