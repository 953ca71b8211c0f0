"""The Python API over the C interface, in parts; `ortolan.session` puts them together.

The names and what they do are onnxruntime's. Nothing here imports the toolchain before it
is needed.
"""
