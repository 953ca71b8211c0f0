"""Which variants of kernels a model uses on a machine, as the full runtime of this one tells.

What a kernel chooses follows from a model's attributes and constants and from the width of vectors,
so that any machine can tell what any target will choose.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator

from ortolan import _native, catalog
from ortolan.build.registry import variant_numbers
from ortolan.build.targets import Target
from ortolan.catalog.types import DataType
from ortolan.required_ops import GENERAL, VariantUse

__all__ = ["lanes_of", "parse_records", "record_variants"]

_OPTION = b"ortolan.record_variants"


def lanes_of(targets: Iterable[Target]) -> frozenset[int]:
    """The floats of the vectors that a library of these targets may use."""
    return frozenset(i.lanes for target in targets for i in target.instruction_sets)


def record_variants(content: bytes, lanes: Iterable[int]) -> frozenset[VariantUse]:
    """What a model uses.

    Args:
        content: an `.ort` file.
        lanes: floats of a vector; several for machines of several kinds.

    Raises:
        OrtolanError: the full runtime cannot load the model.
    """
    found: set[VariantUse] = set()
    for count in sorted(set(lanes)):
        found.update(parse_records(_records(content, count)))
    return frozenset(found)


def parse_records(records: Iterable[tuple[str, str, str]]) -> Iterator[VariantUse]:
    """Uses from what `ortolan_model_node` says: domain, type and variants of each node."""
    names = {n: name for name, n in variant_numbers(catalog.FAMILIES).items()}
    for domain, name, text in records:
        version, letters, *types = text.split()
        operator = catalog.find(domain, name, int(version))
        if operator is None or not operator.variants:
            continue
        keys = tuple(
            DataType[types[at].upper()]
            for key in operator.keys
            for at, parameter in enumerate(operator.inputs[: len(types)])
            if parameter.variable == key and all(
                p.variable != key for p in operator.inputs[:at]
            )
        )  # fmt: skip
        chosen = [names[ord(c) - ord("a")] for c in letters if c != "-"]
        for variant in [v for v in chosen if v in operator.variants] or [GENERAL]:
            yield VariantUse(domain, name, int(version), keys, variant)


def _records(content: bytes, lanes: int) -> Iterator[tuple[str, str, str]]:
    library = _native.library()
    option = _native.Option(_OPTION, str(lanes).encode())
    model = ctypes.c_void_p()
    code = library.ortolan_model_load(
        content, len(content), ctypes.byref(option), 1, None, ctypes.byref(model)
    )
    try:
        _native.check(code, library.ortolan_model_error(model) if model else None)
        graphs = ctypes.c_int64()
        library.ortolan_model_number(model, b"graphs", ctypes.byref(graphs))
        for graph in range(graphs.value):
            node = 0
            while (kind := library.ortolan_model_node(model, graph, node, b"type")) is not None:
                text = library.ortolan_model_node(model, graph, node, b"variants")
                if text is not None:
                    domain = library.ortolan_model_node(model, graph, node, b"domain") or b""
                    yield domain.decode(), kind.decode(), text.decode()
                node += 1
    finally:
        library.ortolan_model_release(model)
