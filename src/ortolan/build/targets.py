"""What a build can be for: compiler target, instruction sets and link options of each platform."""

from __future__ import annotations

import dataclasses
import platform
import sys

COMMON_FLAGS = (
    "-std=c++20", "-O2", "-g0", "-fPIC", "-ffreestanding", "-fno-exceptions", "-fno-rtti",
    "-fno-threadsafe-statics", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables",
    "-fno-stack-protector", "-fno-sanitize=all", "-fvisibility=hidden", "-ffunction-sections",
    "-fdata-sections", "-ffp-contract=fast", "-fno-math-errno", "-fno-builtin-sqrtf",
    "-Wall", "-Wextra", "-Werror",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class InstructionSet:
    """A set of compiler flags under a name that is also a C++ namespace."""

    name: str
    flags: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Target:
    """One artefact: where it runs and how it is linked. Instruction sets from the baseline up."""

    name: str
    triple: str
    instruction_sets: tuple[InstructionSet, ...]
    platform_sources: tuple[str, ...]
    output: str
    flags: tuple[str, ...] = ()
    link_flags: tuple[str, ...] = ()
    onnx: bool = False
    """Whether the library opens ONNX models as well (``native/onnx``)."""


_ELF_LINK = (
    "-shared", "-nostdlib", "-s", "-Wl,-z,defs", "-Wl,--gc-sections",
    "-Wl,-z,max-page-size=16384", "-Wl,-soname,libortolan.so", "-lcompiler_rt",
)  # fmt: skip
_SSE2 = InstructionSet("sse2")
_AVX2 = InstructionSet("avx2", ("-mcpu=x86_64_v3",))
_AVX512 = InstructionSet("avx512", ("-mcpu=x86_64_v4", "-mprefer-vector-width=512"))
_WASM_LINK = (
    "-nostdlib", "-Wl,--no-entry", "-Wl,--export-dynamic", "-Wl,--gc-sections", "-Wl,-s",
    "-Wl,-z,stack-size=65536", "-lcompiler_rt",
)  # fmt: skip
_WASM_FLAGS = ("-mbulk-memory", "-msimd128")

LINUX_X64 = Target(
    "linux-x64", "x86_64-linux-gnu.2.17", (_SSE2, _AVX2, _AVX512), ("linux.cc",),
    "libortolan.so", link_flags=_ELF_LINK, onnx=True,
)  # fmt: skip
LINUX_ARM64 = Target(
    "linux-arm64", "aarch64-linux-gnu.2.17", (InstructionSet("neon"),), ("linux.cc",),
    "libortolan.so", link_flags=_ELF_LINK, onnx=True,
)  # fmt: skip
# Any ARMv7-A with NEON: no fused multiply-add. The driver switches vector registers off unless
# asked for them.
LINUX_ARMV7 = Target(
    "linux-armv7", "arm-linux-gnueabihf", (InstructionSet("neon"),), ("linux.cc",),
    "libortolan.so", link_flags=_ELF_LINK, onnx=True,
    flags=(
        "-mcpu=cortex_a9", "-mfpu=neon", "-mfloat-abi=hard", "-mthumb",
        "-Xclang", "-target-feature", "-Xclang", "+vfp2",
        "-Xclang", "-target-feature", "-Xclang", "+neon",
    ),
)  # fmt: skip
# For machines that convert: constants are folded by the lower set, without fused multiply-add, so
# that the same model gives the same bytes as on x86-64.
_BASE = InstructionSet("base", ("-ffp-contract=off", "-DORTOLAN_BASE=1"))
LINUX_ARM64_HOST = Target(
    "linux-arm64-host", LINUX_ARM64.triple, (_BASE, InstructionSet("neon")), ("linux.cc",),
    "libortolan.so", flags=("-DORTOLAN_HAS_BASE=1",), link_flags=_ELF_LINK, onnx=True,
)  # fmt: skip
WEB = Target(
    "web", "wasm32-freestanding", (InstructionSet("wasm"),), ("wasm.cc",),
    "ortolan.wasm", flags=_WASM_FLAGS, link_flags=_WASM_LINK,
)  # fmt: skip
WEB_RELAXED = Target(
    "web-relaxed", "wasm32-freestanding",
    (InstructionSet("wasm_relaxed", ("-mrelaxed-simd",)),), ("wasm.cc",), "ortolan.relaxed.wasm",
    flags=_WASM_FLAGS, link_flags=_WASM_LINK,
)  # fmt: skip

TARGETS = {
    t.name: t for t in (LINUX_X64, LINUX_ARM64, LINUX_ARM64_HOST, LINUX_ARMV7, WEB, WEB_RELAXED)
}


def host_target() -> Target:
    """The target of this machine.

    Raises:
        LookupError: there is none yet.
    """
    machine = platform.machine().lower()
    name = {"x86_64": "linux-x64", "amd64": "linux-x64", "aarch64": "linux-arm64-host"}.get(machine)
    if not sys.platform.startswith("linux") or name is None:
        known = ", ".join(TARGETS)
        raise LookupError(f"no target for {sys.platform} on {machine}; there are: {known}")
    return TARGETS[name]
