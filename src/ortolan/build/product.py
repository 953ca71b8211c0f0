"""A reduced build for a platform: libraries, header, config, manifest and SBOM in one folder.

Nothing appears in the folder before all is built and tried, and the manifest comes last.
"""

from __future__ import annotations

import dataclasses
import glob
import gzip
import hashlib
import importlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ortolan import catalog
from ortolan._native import library_path
from ortolan.build.attribution import by_part, functions
from ortolan.build.bundle import fat, write_xcframework
from ortolan.build.compile import BuildError, BuildOptions, build, source_root
from ortolan.build.report import weights_by_layer
from ortolan.build.sbom import SBOM, bill_of_materials
from ortolan.build.targets import PLATFORMS, TARGETS, Target
from ortolan.build.variants import lanes_of, record_variants
from ortolan.build.verify import Array, Check, Reference, reference, runner_of, verify
from ortolan.catalog.types import TypeSet
from ortolan.conversion import convert
from ortolan.errors import InvalidArgument, InvalidFormat, NoSuchFile
from ortolan.ortformat import read
from ortolan.ortformat.links import graphs
from ortolan.ortformat.tables import OrtFormatError
from ortolan.pipes import read_pipe
from ortolan.required_ops import (
    Config,
    RequiredOperator,
    absent_features,
    from_uses,
    minimise,
    missing,
    read_config,
    required_operators,
    selector,
    variant_selector,
)
from ortolan.required_ops.config import FEATURES, WITHOUT, ConfigError, merge
from ortolan.required_ops.models import unknown_operators
from ortolan.required_ops.selection import contradictions

__all__ = [
    "MANIFEST",
    "Product",
    "build_product",
    "load_model",
    "plain_name",
    "read_uses",
    "targets_of",
    "wanted_config",
    "with_sets",
]

MANIFEST = "ortolan-build.json"
CONFIG = "required_operators.config"
_EVERYTHING = Config(all_if_empty=True)


@dataclasses.dataclass(frozen=True)
class Product:
    """What was made.

    Attributes:
        folder: where it is.
        manifest: the content of its manifest.
        parts: bytes by part and function, by the name of the target.
        weights: bytes by operator and layer, by the name of the model.
    """

    folder: Path
    manifest: dict[str, Any]
    parts: dict[str, dict[str, dict[str, int]]]
    weights: dict[str, dict[str, dict[str, int]]]


def targets_of(name: str) -> tuple[Target, ...]:
    """The targets of a platform, or one target by its own name.

    Raises:
        InvalidArgument: there is none of that name.
    """
    if name in PLATFORMS:
        return PLATFORMS[name]
    if name in TARGETS:
        return (TARGETS[name],)
    parts = ", ".join(t for t in TARGETS if t not in PLATFORMS)
    raise InvalidArgument(
        f'there is no target "{name}": use one of {", ".join(PLATFORMS)}; or one library of them: '
        f"{parts}"
    )


def plain_name(path: Path) -> str:
    """The name of a file as one line of text: names on POSIX may be any bytes."""
    text = os.fsencode(path.name).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def load_model(path: Path) -> bytes:
    """The `.ort` content of a model file of either format.

    Raises:
        NoSuchFile: it is not there.
        InvalidFormat: an `.ort` file is damaged.
        OrtolanError: an ONNX file cannot be converted.
    """
    piped = read_pipe(path)
    try:
        content = piped or path.read_bytes()
    except OSError as error:
        raise NoSuchFile(f"{path}: cannot be read ({error.strerror or error})") from error
    return content if content[4:8] == b"ORTM" else convert(piped or path)


def read_uses(path: Path) -> tuple[set[RequiredOperator], list[str], frozenset[str], int]:
    """What a model uses, what of it the catalog does not know, its features, and its nodes' number.

    Features are those of `required_ops.config.FEATURES`.

    Raises:
        OrtolanError: the file is no model.
    """
    content = path.read_bytes() if path.is_file() else load_model(path)
    if content[4:8] != b"ORTM":
        content = convert(path, allow_unknown_operators=True)
    try:
        session = read(content)
    except OrtFormatError as error:
        raise InvalidFormat(f"{path}: damaged or no ORT format file: {error}") from error
    assert session.model is not None and session.model.graph is not None
    unknown = unknown_operators(session)
    nodes = sum(len(graph.nodes) for graph in graphs(session.model.graph))
    features = FEATURES - absent_features(session)
    return required_operators(session, lenient=True), unknown, features, nodes


def config_of(content: bytes, name: str, lanes: Iterable[int]) -> Config:
    """What a model in ORT format needs, with the variants of kernels; see `record_variants`."""
    try:
        session = read(content)
        return dataclasses.replace(
            from_uses(required_operators(session)),
            variants=record_variants(content, lanes),
            without=absent_features(session),
        )
    except OrtFormatError as error:
        raise InvalidFormat(f"{name}: damaged or no ORT format file: {error}") from error


def wanted_config(
    models: Sequence[tuple[str, bytes]], config: Path | None, *,
    types: TypeSet | None = None, with_ml: bool = True, targets: Iterable[Target] = (),
) -> Config:  # fmt: skip
    """What a build keeps.

    Args:
        models: names and `.ort` contents.
        config: a file that adds to what the models need; with neither, everything is kept.
        types: the only element types that kernels are kept for.
        with_ml: keep the operators of ai.onnx.ml.
        targets: those for which variants of kernels are recorded; all without any.

    Raises:
        ConfigError: the file is malformed, or names what there is not.
    """
    lanes = lanes_of(list(targets) or TARGETS.values())
    found = [config_of(content, name, lanes) for name, content in models]
    if config is not None:
        found.append(read_config(config))
    merged = merge(found) if found else _EVERYTHING
    unknown = missing(merged)
    if unknown:
        raise ConfigError(
            "operators that Ortolan does not have:\n  " + "\n  ".join(map(str, unknown))
        )
    wrong = contradictions(merged)
    if wrong:
        raise ConfigError(
            f"operators for what the line {WITHOUT} leaves out: take the word out of it, or them "
            "out of the config:\n  " + "\n  ".join(wrong)
        )
    if types is not None:
        if merged.types:  # named by operator: what is not allowed goes
            merged = dataclasses.replace(merged, types={})
        merged = dataclasses.replace(merged, allowed_types=types)
    if not with_ml:
        everything = {
            (o.domain, o.name): frozenset({o.since})
            for family in catalog.FAMILIES for o in family.operators
        }  # fmt: skip
        if merged.keeps_all:
            merged = dataclasses.replace(merged, operators=everything, all_if_empty=False)
        merged = merged.without_domain("ai.onnx.ml")
    return minimise(merged)


def build_product(
    platform: str,
    output: Path,
    cache: Path,
    *,
    models: Sequence[Path] = (),
    inputs: Mapping[str, Array] | None = None,
    config: Path | None = None,
    types: TypeSet | None = None,
    with_ml: bool = True,
    kept: Config | None = None,
    instruction_sets: Sequence[str] = (),
    options: BuildOptions | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Product:
    """Builds, tries and describes the libraries of a platform.

    Args:
        platform: a name in PLATFORMS or TARGETS.
        output: the folder that gets the result; made if it is not there.
        cache: for objects.
        models: files that the build is made for and tried with.
        inputs: values that the models are tried with, by the name of an input; else random ones.
        config: see :func:`wanted_config`.
        types: likewise.
        with_ml: likewise.
        kept: the operators, instead of those that models and config tell.
        instruction_sets: those to keep, of the target's; the lowest is always kept.
        options: how to compile; for size over the whole program by default.
        progress: called with a line per step.

    Raises:
        OrtolanError: a name, a model or the config is wrong, the compiler refused, or a result
            differs.
    """
    options = options or BuildOptions(optimize="size", whole_program=True)
    targets = [with_sets(t, instruction_sets) for t in targets_of(platform)]
    contents = [(plain_name(path), load_model(path)) for path in models]
    if kept is None:
        kept = wanted_config(contents, config, types=types, with_ml=with_ml, targets=targets)
    _know_inputs(contents, inputs or {})
    trial = _Trial(contents, inputs or {}, cache)
    with _staging(output) as stage:
        artefacts, parts, made = [], {}, {}
        for target in targets:
            progress(f"{target.name}")
            library, sizes = _build_one(target, stage / "libraries", cache, kept, options, progress)
            described = _described(library, target, trial)
            described["parts"] = {k: sum(v.values()) for k, v in sizes.items()}
            artefacts.append(described)
            parts[target.name] = sizes
            made[target.name] = library
        result = stage / "result"
        _arrange(platform, targets, made, result)
        (result / CONFIG).write_text(kept.text([f"for ortolan build --target {platform}"]))
        manifest = _manifest(platform, kept, options, artefacts, result)
        (result / SBOM).write_text(bill_of_materials(manifest))
        (result / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
        _publish(result, output)
    weights = {name: weights_by_layer(content) for name, content in contents}
    return Product(output, manifest, parts, weights)


def _know_inputs(models: Sequence[tuple[str, bytes]], inputs: Mapping[str, Array]) -> None:
    """Refuses values for inputs that no model has: random ones would be tried instead."""
    if not inputs:
        return
    known: set[str] = set()
    for _, content in models:
        model = read(content).model
        assert model is not None and model.graph is not None
        known.update(model.graph.inputs)
    wrong = sorted(inputs.keys() - known)
    if wrong:
        names = ", ".join(sorted(known)) or "none"
        raise InvalidArgument(f'--inputs: no model has an input "{wrong[0]}", but {names}')


def with_sets(target: Target, names: Sequence[str]) -> Target:
    """A target with some of its instruction sets.

    Raises:
        InvalidArgument: it lacks one, or a lower one is not among them.
    """
    if not names:
        return target
    known = [i.name for i in target.instruction_sets]
    wrong = [n for n in names if n not in known]
    if wrong:
        raise InvalidArgument(
            f'{target.name} has no instruction set "{wrong[0]}": it has {", ".join(known)}'
        )
    last = max(known.index(n) for n in names)
    if set(known[1 : last + 1]) - set(names):
        raise InvalidArgument(
            f"{target.name}: sets are kept from the lowest up: {', '.join(known[: last + 1])}"
        )
    return dataclasses.replace(target, instruction_sets=target.instruction_sets[: last + 1])


def _build_one(
    target: Target, folder: Path, cache: Path, kept: Config, options: BuildOptions,
    progress: Callable[[str], None],
) -> tuple[Path, dict[str, dict[str, int]]]:  # fmt: skip
    objects: list[Path] = []
    listings: list[Path] = []
    library = build(
        target, folder / target.name, cache, wanted=selector(kept),
        variants=variant_selector(kept), without=kept.without, options=options, progress=progress,
        linked=objects.append, listed=listings.append,
    )  # fmt: skip
    if not listings:
        return library, {}
    sizes = functions(listings[0].read_text("utf-8", "replace"))
    return library, by_part(sizes, objects, library.stat().st_size)


class _Trial:
    """Tries libraries with models; what was tried before, byte for byte, is remembered."""

    def __init__(
        self, models: Sequence[tuple[str, bytes]], inputs: Mapping[str, Array], cache: Path
    ) -> None:
        self._models = models
        self._inputs = inputs
        self._cache = cache
        self._references: list[Reference] = []

    def of(self, library: Path, target: Target) -> tuple[str, list[Check]]:
        """As :func:`ortolan.build.verify.verify`."""
        runner = runner_of(target, self._cache) if self._models else None
        if runner is None:
            return "no", []
        digest = hashlib.sha256(library.read_bytes() + repr(runner).encode())
        digest.update(Path(library_path()).read_bytes())
        for name, content in self._models:
            digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
        for name, array in self._inputs.items():
            digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        known = self._cache / "checks" / f"{digest.hexdigest()[:24]}.json"
        if known.is_file():
            word, rows = json.loads(known.read_text())
            return word, [Check(**row) for row in rows]
        if not self._references:
            self._references = [
                reference(name, content, self._inputs) for name, content in self._models
            ]
        word, checks = verify(library, target, self._references, self._cache)
        if word == "no":  # another version of the runner may be able to
            return word, checks
        known.parent.mkdir(parents=True, exist_ok=True)
        temporary = known.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps([word, [dataclasses.asdict(c) for c in checks]]))
        temporary.replace(known)
        return word, checks


def _described(library: Path, target: Target, trial: _Trial) -> dict[str, Any]:
    content = library.read_bytes()
    executed, checks = trial.of(library, target)
    return {
        "target": target.name,
        "triple": target.triple,
        "instruction_sets": [i.name for i in target.instruction_sets],
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": _sizes(content),
        "executed": executed,
        "checks": [dataclasses.asdict(check) for check in checks],
    }


def _sizes(content: bytes) -> dict[str, int]:
    sizes = {"raw": len(content), "gzip": len(gzip.compress(content, 9, mtime=0))}
    try:
        brotli = importlib.import_module("brotli")
    except ImportError:  # a tool of the tests, not of users
        return sizes
    sizes["brotli"] = len(brotli.compress(content, quality=11, lgwin=24))
    return sizes


def _arrange(platform: str, targets: Sequence[Target], made: dict[str, Path], result: Path) -> None:
    """Lays the files out as the platform's tools expect them."""
    header = (source_root() / "include" / "ortolan" / "ortolan.h").read_bytes()
    (result / "include" / "ortolan").mkdir(parents=True)
    (result / "include" / "ortolan" / "ortolan.h").write_bytes(header)
    parts = [(t, t.triple.split("-")[0], made[t.name].read_bytes()) for t in targets]
    if platform == "ios":
        libraries = {
            "ios-arm64": [(p, c) for t, p, c in parts if "simulator" not in t.name],
            "ios-arm64_x86_64-simulator": [(p, c) for t, p, c in parts if "simulator" in t.name],
        }
        write_xcframework(result / "Ortolan.xcframework", libraries, header)
    elif platform == "macos":
        place = result / "libortolan.dylib"
        place.write_bytes(fat([(processor, content) for _, processor, content in parts]))
    else:
        for target, _, content in parts:
            folder = result
            if target.name.startswith("android-"):
                folder = result / "jni" / target.name.removeprefix("android-")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / target.output).write_bytes(content)


def _manifest(
    platform: str, kept: Config, options: BuildOptions, artefacts: list[dict[str, Any]],
    result: Path,
) -> dict[str, Any]:  # fmt: skip
    files = {
        str(path.relative_to(result).as_posix()): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(result.rglob("*"))
        if path.is_file()
    }
    return {
        "ortolan": _version("ortolan"),
        "compiler": f"ziglang {_version('ziglang')}",
        "sources": _source_digest(),
        "platform": platform,
        "options": dataclasses.asdict(options),
        "config": kept.text().splitlines(),
        "artefacts": artefacts,
        "files": files,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _source_digest() -> str:
    root = source_root()
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".h", ".cc", ".c", ".def")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _staging(output: Path) -> Iterator[Path]:
    """A folder beside the output, on the same disk; gone at the end, whatever happens."""
    output = output.absolute()
    if output.exists() and not output.is_dir():
        raise InvalidArgument(f"{output}: this is a file, give a folder")
    stage = output.parent / f".{output.name}.{os.getpid()}.tmp"
    _sweep(output)
    try:
        stage.mkdir(parents=True)
        yield stage
    except OSError as error:
        place = error.filename or output
        raise BuildError(f"{place}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _sweep(output: Path) -> None:
    """Removes what builds that were killed left beside the output."""
    if os.name != "posix":  # elsewhere nothing tells without harm whether a process is alive
        return
    for left in output.parent.glob(f".{glob.escape(output.name)}.*.tmp"):
        number = left.name.split(".")[-2]
        try:
            os.kill(int(number), 0)
        except ValueError:
            continue
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue


def _publish(result: Path, output: Path) -> None:
    """Moves the result into place: at once where there is nothing, else file by file."""
    if not output.exists():
        result.rename(output)
        return
    old = output / MANIFEST
    old.unlink(missing_ok=True)  # what is there is no longer what it describes
    files = sorted(path for path in result.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda p: p.name == MANIFEST):
        place = output / path.relative_to(result)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
