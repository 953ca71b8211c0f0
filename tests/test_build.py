"""What the compiled library may and may not contain."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ortolan.build.compile import build, source_root
from ortolan.build.host import cache_folder
from ortolan.build.link import compiler, run, zig
from ortolan.build.targets import COMMON_FLAGS, LINUX_ARM64, LINUX_X64, TARGETS, Target

pytest.importorskip("ziglang", reason="the compiler (ziglang) is not installed")

WEAK, UNDEFINED = 2, 0


def sections(content: bytes) -> list[tuple[int, ...]]:
    """Section headers of a 64-bit little-endian ELF file."""
    offset, entry, count = struct.unpack_from("<Q10xHH", content, 0x28)
    return [struct.unpack_from("<IIQQQQIIQQ", content, offset + i * entry) for i in range(count)]


def symbols(content: bytes, kind: int) -> Iterator[tuple[str, int, int]]:
    """Name, binding and section of the symbols of a symbol table (2) or dynamic one (11)."""
    headers = sections(content)
    for header in headers:
        if header[1] != kind:
            continue
        names = headers[header[6]][4]
        for at in range(header[4], header[4] + header[5], 24):
            name, info, _, section = struct.unpack_from("<IBBH", content, at)
            end = content.index(b"\0", names + name)
            yield content[names + name : end].decode(), info >> 4, section


def objects(target: Target, tmp_path: Path) -> list[Path]:
    """Builds a target and returns the objects that it is made of."""
    used: list[Path] = []
    build(target, tmp_path, cache_folder(), linked=used.append)
    return used


def test_no_code_of_an_instruction_set_can_be_merged_into_another(tmp_path: Path) -> None:
    """The linker keeps one copy of a weak function: it must not come from a higher set."""
    wrong = []
    for path in objects(LINUX_X64, tmp_path):
        isa = path.name.split("-")[1]
        if isa not in {s.name for s in LINUX_X64.instruction_sets}:
            continue
        for name, binding, section in symbols(path.read_bytes(), 2):
            if binding == WEAK and section != UNDEFINED and f"{len(isa)}{isa}" not in name:
                wrong.append(f"{path.name}: {name}")
    advice = "make these ORTOLAN_INLINE or define them in native/core:"
    assert not wrong, "\n".join([advice, *wrong])


@pytest.mark.parametrize("target", [LINUX_X64, LINUX_ARM64], ids=lambda t: t.name)
def test_library_exports_the_c_interface_only_and_needs_nothing(
    target: Target, tmp_path: Path
) -> None:
    content = build(target, tmp_path, cache_folder()).read_bytes()
    dynamic = list(symbols(content, 11))
    exported = {name for name, _, section in dynamic if section != UNDEFINED and name}
    assert exported
    assert all(name.startswith("ortolan_") for name in exported), exported
    needed = [name for name, binding, section in dynamic if section == UNDEFINED and name]
    strong = [n for n, b, s in dynamic if s == UNDEFINED and n and b != WEAK]
    assert not strong, strong
    allowed = {
        "posix_memalign", "free", "pthread_create", "pthread_detach", "pthread_atfork",
        "getauxval",
    }  # fmt: skip
    assert set(needed) <= allowed, needed


@pytest.mark.parametrize(
    ("target", "name"),
    [(LINUX_X64, "linux-x64 sse2+avx2+avx512"), (LINUX_ARM64, "linux-arm64")],
    ids=lambda x: getattr(x, "name", ""),
)
def test_libraries_are_within_their_budgets(target: Target, name: str, tmp_path: Path) -> None:
    """``benchmarks/size.py --check`` holds all of them; these are built here anyway."""
    budgets = json.loads((Path(__file__).resolve().parents[1] / "budgets.json").read_text())
    size = build(target, tmp_path, cache_folder()).stat().st_size
    assert size <= budgets["bytes"][name]


def test_arm64_library_has_few_relocations(tmp_path: Path) -> None:
    content = build(LINUX_ARM64, tmp_path, cache_folder()).read_bytes()
    headers = sections(content)
    names_at = headers[struct.unpack_from("<H", content, 0x3E)[0]][4]
    sizes = {}
    for header in headers:
        end = content.index(b"\0", names_at + header[0])
        sizes[content[names_at + header[0] : end].decode()] = header[5]
    assert sizes.get(".rela.dyn", 0) + sizes.get(".data.rel.ro", 0) <= 24 * 1024, sizes


@pytest.mark.slow
def test_the_same_build_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two builds without a common cache; arm64 is the smallest target."""
    first = build(LINUX_ARM64, tmp_path / "a", tmp_path / "cache-a", wanted=lambda o, t: False)
    second = build(LINUX_ARM64, tmp_path / "b", tmp_path / "cache-b", wanted=lambda o, t: False)
    assert first.read_bytes() == second.read_bytes()


def test_32_bit_x86_tells_links(tmp_path: Path) -> None:
    """Its flags for that are not those of other machines of 32 bits."""
    target, native = TARGETS["android-x86"], source_root()
    sources = [
        Path(__file__).with_name("native") / "links_probe.cc",
        native / "platform" / "linux.cc", native / "core" / "memory.cc",
    ]  # fmt: skip
    objects = [tmp_path / f"{source.stem}.o" for source in sources]
    for source, made in zip(sources, objects, strict=True):
        command = [*compiler(), "-target", target.triple, *COMMON_FLAGS, *target.flags, "-Os"]
        command += [*target.instruction_sets[0].flags, f"-I{native}", "-c", str(source)]
        run([*command, "-o", str(made)], cache_folder())
    program = tmp_path / "program"
    run([zig(), "ld.lld", "-o", str(program), *map(str, objects)], cache_folder())
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "w.bin").write_bytes(bytes(64))
    (inside / "link.bin").symlink_to(outside / "w.bin")
    (inside / "folder").symlink_to(outside)
    try:
        done = subprocess.run([program], cwd=inside, timeout=60, check=False)
    except OSError:
        pytest.skip("this machine runs no programs of 32-bit x86")
    assert done.returncode == 3
