"""onnxruntime's tools under their names: `python -m ortolan.tools.X` takes the same options.

For scripts that call them; `ortolan` on the command line does more.
"""
