"""Whether a build has what a model needs, and what every operator set supports."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from ortolan import catalog
from ortolan.build.product import CONFIG, MANIFEST
from ortolan.build.registry import instances
from ortolan.catalog.operator import NEWEST, Operator
from ortolan.catalog.types import TypeSet
from ortolan.errors import InvalidArgument
from ortolan.required_ops import Config, RequiredOperator, parse_config, read_config, selector
from ortolan.required_ops.selection import minimise

__all__ = ["SETS", "OperatorSet", "lacks", "mobile_config", "package_config", "supported"]

OperatorSet = dict[Operator, TypeSet]


def mobile_config() -> Config:
    """The operators of the prebuilt package "mobile" that the catalog has."""
    path = Path(__file__).parents[1] / "required_ops" / "mobile.config"
    return minimise(parse_config(path.read_text("utf-8"), path.name))


SETS = {"full": lambda: Config(all_if_empty=True), "mobile": mobile_config}


def package_config(package: str) -> Config:
    """What a package has: "full", "mobile", a folder that `ortolan build` wrote, or a config.

    Raises:
        InvalidArgument: it is none of them.
    """
    if package in SETS:
        return SETS[package]()
    path = Path(package)
    if (path / MANIFEST).is_file():
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        return parse_config("\n".join(manifest["config"]), str(path / CONFIG))
    if path.is_file():
        return read_config(path)
    raise InvalidArgument(
        f"{package}: this is no package: give full, mobile, a folder that ortolan build wrote, or "
        "a config"
    )


def lacks(config: Config, uses: Iterable[RequiredOperator]) -> list[RequiredOperator]:
    """The uses for which a build of a config has no kernel, in order of their names."""
    wanted = selector(config)
    found = []
    for use in sorted(set(uses), key=lambda u: (u.domain, u.name, u.version, u.types)):
        operator = catalog.find(use.domain, use.name, use.version)
        if operator is None or not any(
            all(t in types for t, types in zip(use.types, pair, strict=False))
            and (wanted is None or wanted(operator, pair))
            for pair in ((i.types_a, i.types_b) for i in instances(operator))
        ):
            found.append(use)
    return found


def supported(config: Config) -> Iterator[tuple[Operator, TypeSet]]:
    """The entries of which a build keeps something, with the types of their first key."""
    wanted = selector(config)
    for family in catalog.FAMILIES:
        for operator in family.operators:
            kept = [
                i for i in instances(operator)
                if wanted is None or wanted(operator, (i.types_a, i.types_b))
            ]  # fmt: skip
            if kept:
                yield operator, frozenset().union(*(i.types_a for i in kept))


def versions(operator: Operator) -> str:
    """The versions of an entry as text: "7-12", "13+" or "9"."""
    if operator.until == NEWEST:
        return f"{operator.since}+"
    same = operator.until == operator.since
    return str(operator.since) if same else f"{operator.since}-{operator.until}"
