"""Where onnxruntime keeps its internals, for programs that import exceptions and types from there.

`import ortolan as onnxruntime` then works for them as well.
"""
