"""Rewrites of the graph, one per file; `pipeline` is the ordered list of them."""
