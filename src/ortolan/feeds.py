"""Inputs for a model from files or from nowhere: .npy, .npz, images, random values.

In: what somebody wrote on a command line. Out: arrays of the types and shapes that a session needs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ortolan.errors import InvalidArgument, NoSuchFile
from ortolan.runtime.describe import NodeArg
from ortolan.runtime.element_types import STRING, number_from, numpy_type
from ortolan.runtime.execution import as_array

__all__ = [
    "Source",
    "fixed_shape",
    "make_feeds",
    "parse_pairs",
    "parse_sizes",
    "random_value",
    "read_inputs",
]

Array = npt.NDArray[Any]
Source = str | os.PathLike[str]

IMAGES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif"))
_FULL = 255.0


def parse_pairs(texts: Sequence[str], what: str) -> dict[str, str]:
    """`name=value` texts as a dict.

    Raises:
        ortolan.errors.InvalidArgument: one has no `=`.
    """
    pairs = {}
    for text in texts:
        name, sign, value = text.rpartition("=")
        if not sign or not name:
            raise InvalidArgument(f"{text!r}: {what} is written NAME=VALUE")
        pairs[name] = value
    return pairs


def parse_sizes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`name=3` and `name=1,3,224,224` texts as sizes by name.

    Raises:
        ortolan.errors.InvalidArgument: a text is neither.
    """
    pairs = parse_pairs(texts, "a size or a shape")
    try:
        sizes = {
            name: tuple(int(size) for size in value.split(",") if size)
            for name, value in pairs.items()
        }
    except ValueError as error:
        raise InvalidArgument(f"sizes are numbers with commas between them: {error}") from error
    if wrong := [name for name, shape in sizes.items() if min(shape, default=0) < 0]:
        raise InvalidArgument(f"a size of {wrong[0]!r} is negative")
    return sizes


def fixed_shape(argument: NodeArg, sizes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of an input with sizes for what is not fixed.

    Args:
        argument: the input.
        sizes: a shape by the input's name, a size by the name of a symbolic dimension; what is
            in neither is 1.

    Raises:
        ortolan.errors.InvalidArgument: the size of a symbolic dimension is left out.
    """
    if argument.name in sizes:
        return sizes[argument.name]
    shape = []
    for size in argument.shape:
        named = sizes.get(size, (1,)) if isinstance(size, str) else (1,)
        if not named:
            raise InvalidArgument(f"there is no size for {size!r}")
        shape.append(size if isinstance(size, int) else named[0])
    return tuple(shape)


def random_value(
    argument: NodeArg, sizes: Mapping[str, tuple[int, ...]], generator: np.random.Generator
) -> Array:
    """Random elements for an input: normal numbers, integers 0 to 9, booleans, short texts.

    Raises:
        ortolan.errors.InvalidArgument: the input is no tensor, or larger than can be.
    """
    if not argument.type.startswith("tensor("):
        raise InvalidArgument(f"input {argument.name!r} is a {argument.type}: give it in a program")
    number = number_from(argument.type)
    shape = fixed_shape(argument, sizes)
    try:
        return _random(number, shape, generator)
    except (MemoryError, ValueError) as error:  # numpy has limits of its own
        raise InvalidArgument(f"input {argument.name!r} of shape {shape}: {error}") from error


def _random(number: int, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    if number == STRING:
        texts = generator.choice(np.array(["a", "text", "Ortolan"], object), shape)
        return np.asarray(texts, object)
    dtype = numpy_type(number)
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        return generator.integers(0, 10, shape).astype(dtype)
    values = generator.standard_normal(shape)
    if dtype.kind == "c":
        values = values + 1j * generator.standard_normal(shape)
    return np.asarray(values).astype(dtype)


def read_inputs(sources: Sequence[str], inputs: Sequence[NodeArg]) -> dict[str, Array]:
    """Arrays from files, by name of the input.

    Args:
        sources: `name=file` or `name=number` each, or a file alone: an .npz goes to the inputs
            that its arrays are named after, the others to the inputs in order.
        inputs: of the model.

    Raises:
        ortolan.errors.NoSuchFile: a file cannot be read.
        ortolan.errors.InvalidArgument: no such input, or the file holds something else.
    """
    by_name = {argument.name: argument for argument in inputs}
    found: dict[str, Array] = {}
    for source in sources:
        name, sign, file = source.partition("=")
        if not sign or (name not in by_name and _exists(Path(source))):
            name, file = "", source
        if name and name not in by_name:
            raise InvalidArgument(f"there is no input {name!r}; there are: {', '.join(by_name)}")
        path = Path(file)
        value = _written(file, by_name[name]) if name and not _exists(path) else None
        if value is not None:
            found[name] = value
            continue
        if path.suffix == ".npz" and not name:
            found.update(_archive(path, by_name))
            continue
        if not name:
            free = [n for n in by_name if n not in found]
            if not free:
                raise InvalidArgument(f"{file}: all inputs of the model have a value already")
            name = free[0]
        found[name] = _one(path, by_name[name])
    return found


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # its name may be too long for a file
        return False


def _written(text: str, argument: NodeArg) -> Array | None:
    """A number or a list of them, written out; None for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not argument.type.startswith("tensor("):
        return None
    array = as_array(value, argument.name, number_from(argument.type))
    return array.reshape(1) if array.ndim == 0 and len(argument.shape) == 1 else array


def _archive(path: Path, by_name: Mapping[str, NodeArg]) -> dict[str, Array]:
    archive = _load(path)
    if unknown := [name for name in archive if name not in by_name]:
        raise InvalidArgument(
            f"{path}: it holds {', '.join(unknown)}, which are no inputs of the model; "
            f"there are: {', '.join(by_name)}"
        )
    return archive


def _load(path: Path) -> dict[str, Array]:
    """The arrays of a file by name; that of an .npy has none."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return {name: np.asarray(loaded[name]) for name in loaded.files}
    except OSError as error:
        raise NoSuchFile(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # any: numpy reads with what there is for zip, zlib, Python's text
        raise InvalidArgument(f"{path}: no array of numpy ({error})") from error


def _one(path: Path, argument: NodeArg) -> Array:
    if path.suffix.lower() in IMAGES:
        return _image(path, argument)
    if path.suffix.lower() not in (".npy", ".npz"):
        raise InvalidArgument(f"{path}: inputs are .npy, .npz or images")
    loaded = _load(path)
    if len(loaded) != 1:
        raise InvalidArgument(f"{path}: it holds {len(loaded)} arrays, not one")
    return next(iter(loaded.values()))


def _image(path: Path, argument: NodeArg) -> Array:
    """An image in the size, layout and type of an input; floats are 0 to 1."""
    try:
        from PIL import Image
    except ImportError as error:
        raise InvalidArgument(f"{path}: reading images needs Pillow: pip install pillow") from error
    shape = argument.shape
    if len(shape) not in (3, 4):
        raise InvalidArgument(f"{path}: input {argument.name!r} of shape {shape} takes no image")
    last_is_channel = shape[-1] in (1, 3, 4) and shape[-3] not in (1, 3, 4)
    channels, height, width = (
        (shape[-1], shape[-3], shape[-2]) if last_is_channel else (shape[-3], shape[-2], shape[-1])
    )
    mode = {1: "L", 4: "RGBA"}.get(channels if isinstance(channels, int) else 3, "RGB")
    try:
        with Image.open(path) as opened:
            picture = opened.convert(mode)
    except FileNotFoundError as error:
        raise NoSuchFile(f"{path}: cannot be read ({error.strerror})") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidArgument(f"{path}: no image ({error})") from error
    size = (
        width if isinstance(width, int) else picture.width,
        height if isinstance(height, int) else picture.height,
    )
    pixels = np.asarray(picture.resize(size)).reshape(size[1], size[0], -1)
    if not last_is_channel:
        pixels = pixels.transpose(2, 0, 1)
    dtype = numpy_type(number_from(argument.type))
    if dtype.kind not in "iu":
        pixels = pixels / _FULL
    return np.ascontiguousarray(pixels[None] if len(shape) == 4 else pixels).astype(dtype)


def make_feeds(
    inputs: Sequence[NodeArg],
    sources: Sequence[str],
    sizes: Mapping[str, tuple[int, ...]],
    seed: int,
) -> tuple[dict[str, Array], list[str]]:
    """A value for every input: from files, the others random.

    Args:
        inputs: of the model, those that must be fed.
        sources: as for `read_inputs`.
        sizes: as for `fixed_shape`.
        seed: of the random values.

    Returns:
        The arrays, and the names of those that are random.
    """
    feeds = read_inputs(sources, inputs)
    generator = np.random.default_rng(seed)
    made = []
    for argument in inputs:
        if argument.name not in feeds:
            feeds[argument.name] = random_value(argument, sizes, generator)
            made.append(argument.name)
    return feeds, made
