"""A folder to take to a device: a built library, models, inputs, and what must come out.

The results that come back are compared here; the device needs no Python.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ortolan.build.product import MANIFEST, load_model
from ortolan.build.targets import TARGETS
from ortolan.build.verify import (
    Array,
    Check,
    Reference,
    compare,
    pack_feeds,
    probe,
    reference,
    unpack_results,
)
from ortolan.errors import InvalidArgument

__all__ = ["compare_kit", "write_kit"]

INDEX = "kit.json"
_PLACE = "/data/local/tmp/ortolan-selftest"
_SCRIPT = """#!/bin/sh
# Runs the models on the Android device that adb is connected with; results lie in results/ABI.
set -e
cd "$(dirname "$0")"
for abi in $(adb shell getprop ro.product.cpu.abilist | tr -d '\\r' | tr ',' ' '); do
  [ -d "$abi" ] || continue
  adb shell rm -rf {place}
  adb shell mkdir -p {place}
  adb push "$abi/probe" "$abi/libortolan.so" models/* {place}
  adb shell chmod 755 {place}/probe
  mkdir -p "results/$abi"
  for feeds in models/*.feeds; do
    name=$(basename "$feeds" .feeds)
    adb shell "cd {place} && ./probe libortolan.so $name.ort $name.feeds $name.results"
    adb pull "{place}/$name.results" "results/$abi/"
  done
  adb shell rm -rf {place}
done
echo "now: ortolan selftest --compare $(pwd)"
"""


def write_kit(
    folder: Path, build: Path, models: Sequence[Path], cache: Path,
    inputs: Mapping[str, Array] | None = None,
) -> list[str]:  # fmt: skip
    """Writes the folder for an Android build.

    Args:
        folder: which must not be there.
        build: what `ortolan build --target android` wrote.
        models: files that the build was made for.
        cache: for the program that runs them.
        inputs: by name; random ones for the rest.

    Returns:
        The ABIs in it.

    Raises:
        InvalidArgument: the build is none, or for something else.
    """
    manifest = build / MANIFEST
    if not manifest.is_file():
        raise InvalidArgument(f"{build}: this is no folder that ortolan build wrote")
    names = [a["target"] for a in json.loads(manifest.read_text("utf-8"))["artefacts"]]
    abis = {n.removeprefix("android-"): TARGETS[n] for n in names if n.startswith("android-")}
    if not abis:
        raise InvalidArgument(f"{build}: a kit is for --target android, this is {', '.join(names)}")
    if not models:
        raise InvalidArgument("a kit needs models: those that the build was made for")
    if folder.exists():
        raise InvalidArgument(f"{folder}: this is there already")
    place = folder / "models"
    place.mkdir(parents=True)
    for path in models:
        given = reference(path.name, load_model(path), inputs)
        (place / f"{path.stem}.ort").write_bytes(given.content)
        (place / f"{path.stem}.feeds").write_bytes(pack_feeds(given.feeds))
        expected: dict[str, Any] = {
            f"{k:04}": output for k, output in enumerate(given.outputs) if output.dtype != object
        }
        expected |= {"code": np.array(given.code), "count": np.array(len(given.outputs))}
        np.savez(folder / f"{path.stem}.expected.npz", **expected)
    for abi, target in abis.items():
        (folder / abi).mkdir()
        shutil.copy(build / "jni" / abi / target.output, folder / abi / target.output)
        shutil.copy(probe(target.runner, cache), folder / abi / "probe")
    script = folder / "run.sh"
    script.write_text(_SCRIPT.format(place=_PLACE))
    script.chmod(0o755)
    index = {"abis": sorted(abis), "models": [path.stem for path in models]}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    return sorted(abis)


def compare_kit(folder: Path) -> list[tuple[str, Check]]:
    """Compares what the device gave with what must come out: ABIs and comparisons.

    Raises:
        InvalidArgument: the folder is no kit, or there are no results in it.
        BuildError: a result differs.
    """
    if not (folder / INDEX).is_file():
        raise InvalidArgument(f"{folder}: this is no folder that ortolan selftest --kit wrote")
    index = json.loads((folder / INDEX).read_text("utf-8"))
    found = []
    for abi in index["abis"]:
        for name in index["models"]:
            results = folder / "results" / abi / f"{name}.results"
            if not results.is_file():
                continue
            with np.load(folder / f"{name}.expected.npz") as content:
                outputs = tuple(
                    content[f"{k:04}"] if f"{k:04}" in content.files else np.empty(0, object)
                    for k in range(int(content["count"]))
                )
                given = Reference(name, b"", {}, outputs, int(content["code"]))
            got = unpack_results(results.read_bytes())
            found.append((abi, compare(given, got, TARGETS[f"android-{abi}"])))
    if not found:
        raise InvalidArgument(f"{folder}: there are no results: run run.sh with a device connected")
    return found
