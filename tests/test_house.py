"""Holds the rules of the house: which way imports run, how long files are, what may stand in them.

CONTRIBUTING.md tells the rules; each test here has a twin that shows that it can fail.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ortolan.build.compile import SHARED
from ortolan.catalog import FAMILIES

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "ortolan"
NATIVE = ROOT / "native"

# A stage may use its own number and smaller ones, directly or through other modules.
STAGES = {
    "catalog": 0,
    "importer": 1,
    "importing": 1,
    "passes": 1,
    "ortformat": 1,
    "required_ops": 1,
    "build": 2,
    "commands": 3,
    "cli": 3,
}
# Headers that clang brings itself; everything else would need a C library.
COMPILER_HEADERS = frozenset(
    "stddef.h stdint.h float.h limits.h immintrin.h arm_neon.h wasm_simd128.h".split()
)
CODE_SUFFIXES = frozenset(
    ".py .h .cc .c .m .mm .java .ts .js .mjs .sh .kt .swift .html .css".split()
)
LONGEST_FILE = 800
LONGEST_FUNCTION = 80
# A place on somebody's machine: an absolute path into a home or a container's folders.
MACHINE_PATH = re.compile(rb"(?:(?<![\w.~$}/-])|(?<=-[IL]))/(?:root|work|home)/")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def tracked_files() -> list[Path]:
    """Files of the repository, those not yet committed included; never what git ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        output = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: what belongs to the repository is not known")
    names = {os.fsdecode(name) for name in output.split(b"\0") if name}
    return sorted(path for name in names if (path := ROOT / name).is_file())


def module_name(path: Path, package: Path) -> str:
    """`ortolan.catalog.types` for that file of the package."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(source: str) -> Iterator[str]:
    """Every module that a source imports, at whatever depth; `from a import b` gives both."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno} imports relatively"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def import_graph(package: Path) -> dict[str, set[str]]:
    """Each module of the package with the modules of the package that it imports."""
    sources = {module_name(path, package): path for path in package.rglob("*.py")}
    return {
        name: {other for other in imported_names(path.read_text("utf-8")) if other in sources}
        for name, path in sources.items()
    }


def stage_of(module: str) -> int | None:
    """The number of the stage that a module belongs to; None outside the stages."""
    parts = module.split(".")
    return STAGES.get(parts[1]) if len(parts) > 1 else None


def forbidden_imports(graph: Mapping[str, set[str]]) -> list[str]:
    """Ways, as `a -> b -> c`, on which a stage reaches a later one."""
    found = []
    for start in sorted(graph):
        stage = stage_of(start)
        if stage is None:
            continue
        ways = {start: start}
        pending = [start]
        while pending:
            module = pending.pop()
            for other in sorted(graph[module] - set(ways)):
                ways[other] = f"{ways[module]} -> {other}"
                reached = stage_of(other)
                if reached is not None and reached > stage:
                    found.append(ways[other])
                elif reached is None:
                    pending.append(other)
    return found


def test_python_imports_run_one_way() -> None:
    graph = import_graph(PACKAGE)
    assert {"ortolan.catalog.types", "ortolan.ortformat.schema"} <= set(graph)
    assert forbidden_imports(graph) == []


def test_python_import_rule_sees_detours() -> None:
    graph = {
        "ortolan.catalog.types": {"ortolan.helper"},
        "ortolan.helper": {"ortolan.build.host"},
        "ortolan.build.host": {"ortolan.catalog.types"},
        "ortolan.cli": {"ortolan.build.host"},
    }
    assert forbidden_imports(graph) == [
        "ortolan.catalog.types -> ortolan.helper -> ortolan.build.host"
    ]
    assert list(imported_names("def f():\n    from ortolan import cli\n")) == [
        "ortolan",
        "ortolan.cli",
    ]


def test_imported_packages_are_declared() -> None:
    """What is installed for the tests must not hide what a user would miss."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["build"]
    # Used where they are installed; commands that need them say so.
    known = package_names(declared) | {"PIL", "onnxruntime"}
    assert {"numpy", "onnx_ir"} <= known
    found = {
        f"{module_name(path, PACKAGE)}: {top}"
        for path in PACKAGE.rglob("*.py")
        for name in imported_names(path.read_text("utf-8"))
        if (top := name.split(".")[0]) not in known | sys.stdlib_module_names | {"ortolan"}
    }
    assert found == set()


def package_names(requirements: list[str]) -> set[str]:
    """The modules that requirements like `onnx-ir>=1.0` bring."""
    names = {re.split(r"[^\w-]", entry)[0].replace("-", "_") for entry in requirements}
    return {"google" if name == "protobuf" else name for name in names}


def test_the_build_imports_what_it_asks_for_only(tmp_path: Path) -> None:
    """A wheel is built in an environment without the package's other dependencies."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    for name in package_names(content["build-system"]["requires"]) - {"hatchling"}:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.submodule_search_locations
        (tmp_path / name).symlink_to(spec.submodule_search_locations[0])
    code = "import ortolan.build.host as host; print(host.build_host.__name__)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(tmp_path)])}
    # -S: without the installed packages
    command = [sys.executable, "-S", "-c", code]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (output.stdout, output.stderr) == ("build_host\n", "")


def cpp_files() -> list[Path]:
    """The runtime's sources."""
    return sorted(path for path in NATIVE.rglob("*") if path.suffix in {".h", ".cc", ".c"})


def forbidden_includes(path: str, text: str, exists: frozenset[str], generators: str) -> list[str]:
    """The includes of one runtime source that break a rule, with the rule.

    Args:
        path: the source, relative to native/.
        text: its content.
        exists: all sources, relative to native/.
        generators: text in which the names of generated headers occur.
    """
    folder = path.split("/")[0]
    found = []
    for match in INCLUDE.finditer(text):
        kind, name = match.groups()
        place = name.split("/")[0]
        if kind == "<":
            if name not in COMPILER_HEADERS:
                found.append(f"{path}: <{name}> is not a header of the compiler")
        elif folder == "kernels" and name == Path(path).stem + ".inc":
            continue  # the registry generator writes one for each family
        elif name not in exists and f"include/{name}" not in exists:
            if "/" in name or name not in generators:
                found.append(f"{path}: {name} is not a path from native/, and nothing generates it")
        elif folder == "core" and place == "kernels":
            found.append(f"{path}: the core must not know a kernel ({name})")
        elif folder == "kernels" and place not in ("core", "kernels"):
            found.append(f"{path}: a kernel includes core and kernel headers only, not {name}")
    return found


def test_cpp_includes_run_one_way() -> None:
    files = {path.relative_to(NATIVE).as_posix(): path for path in cpp_files()}
    assert "core/base.h" in files
    build = "\n".join(p.read_text("utf-8") for p in sorted((PACKAGE / "build").glob("*.py")))
    found = []
    for name, path in files.items():
        found += forbidden_includes(name, path.read_text("utf-8"), frozenset(files), build)
    assert found == []


@pytest.mark.parametrize(
    ("path", "line", "is_allowed"),
    [
        ("core/run.cc", '#include "core/base.h"', True),
        ("core/run.cc", '#include "kernels/gemm.h"', False),
        ("core/run.cc", '#include "made.h"', True),
        ("core/run.cc", '#include "lost.h"', False),
        ("core/run.cc", "#include <stdint.h>", True),
        ("core/run.cc", "#include <vector>", False),
        ("kernels/conv.cc", '#include "kernels/gemm.h"', True),
        ("kernels/conv.cc", '#include "conv.inc"', True),
        ("kernels/conv.cc", '#include "gemm.inc"', False),
        ("kernels/conv.cc", '#  include "platform/linux.h"', False),
        ("platform/linux.cc", '#include "core/base.h"', True),
    ],
)
def test_cpp_include_rule(path: str, line: str, is_allowed: bool) -> None:
    exists = frozenset({"core/base.h", "kernels/gemm.h", "platform/linux.h"})
    assert (forbidden_includes(path, line + "\n", exists, 'name = "made.h"') == []) == is_allowed


def test_files_are_short() -> None:
    sources = [path for path in tracked_files() if path.suffix in CODE_SUFFIXES]
    assert Path(__file__) in sources
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in sources
    }
    assert {name: n for name, n in lengths.items() if n > LONGEST_FILE} == {}


def long_functions(source: str) -> list[str]:
    """Functions of a Python source with more lines than the limit."""
    return [
        f"{node.name} ({node.end_lineno - node.lineno + 1} lines)"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= LONGEST_FUNCTION
    ]


def test_python_functions_are_short() -> None:
    found = {
        str(path.relative_to(ROOT)): long
        for path in tracked_files()
        if path.suffix == ".py" and (long := long_functions(path.read_text("utf-8")))
    }
    assert found == {}
    body = "    pass\n" * LONGEST_FUNCTION
    assert long_functions(f"def f():\n{body}") == [f"f ({LONGEST_FUNCTION + 1} lines)"]
    assert long_functions(f"def f():\n{body[9:]}") == []


def test_no_file_names_a_place_on_a_machine() -> None:
    found = []
    for path in tracked_files():
        content = path.read_bytes()
        for match in MACHINE_PATH.finditer(content):
            line = content.count(b"\n", 0, match.start()) + 1
            found.append(f"{path.relative_to(ROOT)}:{line}: {match.group().decode()}")
    assert found == []


@pytest.mark.parametrize("folder", ["root", "work", "home"])
def test_machine_path_rule(folder: str) -> None:
    assert MACHINE_PATH.search(f'open("/{folder}/x")'.encode())
    assert MACHINE_PATH.search(f"clang -I/{folder}/include".encode())
    assert not MACHINE_PATH.search(f"build/{folder}/x https://a.b/{folder}/".encode())


def test_every_kernel_file_has_a_catalog_family() -> None:
    kernels = {path.stem for path in (NATIVE / "kernels").glob("*.cc")} - set(SHARED)
    families = {family.name for family in FAMILIES}
    assert kernels, "native/kernels holds no kernel"
    assert kernels - families == set()
