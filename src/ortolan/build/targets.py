"""What a build can be for: compiler target, instruction sets and link options of each platform."""

from __future__ import annotations

import dataclasses
import platform
import sys

COMMON_FLAGS = (
    "-std=c++20", "-g0", "-fPIC", "-ffreestanding", "-fno-exceptions", "-fno-rtti",
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
    lanes: int = 4
    """Floats of a vector: kLanes of kernels/simd.h."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One library: where it runs and how it is linked. Instruction sets from the baseline up."""

    name: str
    triple: str
    instruction_sets: tuple[InstructionSet, ...]
    platform_sources: tuple[str, ...]
    output: str
    linker: str
    """"elf", "wasm", "coff", "macho" or "archive" (a static library)."""
    flags: tuple[str, ...] = ()
    link_flags: tuple[str, ...] = ()
    libraries: tuple[tuple[str, str], ...] = ()
    """(file in native/platform, name of the system library): what it is linked against."""
    runner: str = ""
    """How a machine like this one may run it: "native", "node", "qemu-arm64", "qemu-arm"..."""
    onnx: bool = False
    """Whether the library opens ONNX models as well (``native/onnx``)."""
    records: bool = False
    """Whether it tells, if it has every operator, which variants of kernels a model uses."""


# Not deleted: the threads of its pool run there until the process ends.
_ELF_LINK = (
    "-shared", "-z", "defs", "-z", "nodelete", "--gc-sections", "-z", "max-page-size=16384",
    "-soname", "libortolan.so", "-O2", "--icf=all", "--build-id=none", "--hash-style=both",
)  # fmt: skip
_ANDROID_LINK = (*_ELF_LINK, "--exclude-libs", "ALL", "-z", "relro", "-z", "now")
_SSE2 = InstructionSet("sse2")
_AVX2 = InstructionSet("avx2", ("-mcpu=x86_64_v3",), 8)
_AVX512 = InstructionSet("avx512", ("-mcpu=x86_64_v4", "-mprefer-vector-width=512"), 16)
_NEON = InstructionSet("neon")
_WASM = InstructionSet("wasm")
_RELAXED = InstructionSet("wasm_relaxed", ("-mrelaxed-simd",))
_WASM_LINK = (
    "--no-entry", "--export-dynamic", "--gc-sections", "-O2", "--compress-relocations",
    "-z", "stack-size=65536",
)  # fmt: skip
_THREADS_LINK = (
    *_WASM_LINK, "--shared-memory", "--import-memory", "--max-memory=4294967296",
    "--export=__stack_pointer", "--export=__heap_base",
)  # fmt: skip
_WASM_FLAGS = ("-mbulk-memory", "-msimd128")
_THREADS_FLAGS = (*_WASM_FLAGS, "-matomics", "-mmutable-globals")

LINUX_X64 = Target(
    "linux-x64", "x86_64-linux-gnu.2.17", (_SSE2, _AVX2, _AVX512), ("linux.cc",),
    "libortolan.so", "elf", link_flags=_ELF_LINK, runner="x86_64", onnx=True, records=True,
)  # fmt: skip
LINUX_ARM64 = Target(
    "linux-arm64", "aarch64-linux-gnu.2.17", (_NEON,), ("linux.cc",),
    "libortolan.so", "elf", link_flags=_ELF_LINK, runner="aarch64",
)  # fmt: skip
# Any ARMv7-A with NEON: no fused multiply-add. The driver switches vector registers off unless
# asked for them.
LINUX_ARMV7 = Target(
    "linux-armv7", "arm-linux-gnueabihf", (_NEON,), ("linux.cc",),
    "libortolan.so", "elf", link_flags=(*_ELF_LINK, "--exclude-libs", "ALL"),
    libraries=(("compiler_rt.zig", "compiler_rt.a"),), runner="arm",
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
    "linux-arm64-host", LINUX_ARM64.triple, (_BASE, _NEON), ("linux.cc",),
    "libortolan.so", "elf", flags=("-DORTOLAN_HAS_BASE=1",), link_flags=_ELF_LINK,
    runner="aarch64", onnx=True, records=True,
)  # fmt: skip
WEB = Target(
    "web", "wasm32-freestanding", (_WASM,), ("wasm.cc",),
    "ortolan.wasm", "wasm", flags=_WASM_FLAGS, link_flags=_WASM_LINK, runner="node",
)  # fmt: skip
WEB_RELAXED = Target(
    "web-relaxed", "wasm32-freestanding", (_RELAXED,), ("wasm.cc",), "ortolan.relaxed.wasm",
    "wasm", flags=_WASM_FLAGS, link_flags=_WASM_LINK, runner="node",
)  # fmt: skip
WEB_THREADS = Target(
    "web-threads", "wasm32-freestanding", (_WASM,), ("wasm.cc",), "ortolan.threads.wasm",
    "wasm", flags=_THREADS_FLAGS, link_flags=_THREADS_LINK, runner="node-threads",
)  # fmt: skip
WEB_RELAXED_THREADS = Target(
    "web-relaxed-threads", "wasm32-freestanding", (_RELAXED,), ("wasm.cc",),
    "ortolan.relaxed.threads.wasm", "wasm", flags=_THREADS_FLAGS, link_flags=_THREADS_LINK,
    runner="node-threads",
)  # fmt: skip
WASI = Target(
    "wasi", "wasm32-freestanding", (_WASM,), ("wasm.cc", "wasi.cc"), "ortolan.wasi.wasm",
    "wasm", flags=(*_WASM_FLAGS, "-DORTOLAN_WASI"), link_flags=_WASM_LINK, runner="node-wasi",
)  # fmt: skip


def _android(
    abi: str, triple: str, instruction_set: InstructionSet, *flags: str, runner: str
) -> Target:
    libraries = [("android_libc.c", "libc.so")]
    if runner in ("arm", "i386"):  # 64-bit division is a call there
        libraries.append(("compiler_rt.zig", "compiler_rt.a"))
    return Target(
        f"android-{abi}", triple, (instruction_set,), ("linux.cc",), "libortolan.so", "elf",
        ("-D__ANDROID__", *flags), _ANDROID_LINK, tuple(libraries), runner,
    )  # fmt: skip


# The none triple: Android's own would call helpers for atomics that nothing here defines.
ANDROID_ARM64 = _android(
    "arm64-v8a", "aarch64-linux-none", _NEON, "-mcpu=generic+reserve_x18", runner="aarch64"
)
# The compiler turns NEON off with the soft-float convention that Android keeps: it is asked for.
ANDROID_ARM = _android(
    "armeabi-v7a", "arm-linux-androideabi", _NEON, "-mcpu=cortex_a9", "-mfloat-abi=softfp",
    "-mfpu=neon", "-Xclang", "-target-feature", "-Xclang", "+vfp2", "-Xclang", "-target-feature",
    "-Xclang", "+neon", "-mthumb", runner="arm",
)  # fmt: skip
ANDROID_X64 = _android(
    "x86_64", "x86_64-linux-android", InstructionSet("sse2", ("-mcpu=x86_64_v2",)),
    runner="x86_64",
)  # fmt: skip
ANDROID_X86 = _android(
    "x86", "x86-linux-android", _SSE2, "-mcpu=i686+ssse3+sse2+sse", "-mstackrealign",
    runner="i386",
)  # fmt: skip


def _apple(
    name: str, triple: str, sets: tuple[InstructionSet, ...], output: str, *, onnx: bool = False
) -> Target:
    linker = "archive" if output.endswith(".a") else "macho"
    return Target(name, triple, sets, ("apple.cc",), output, linker, onnx=onnx, records=onnx)


_APPLE_X64 = (InstructionSet("sse2", ("-mcpu=x86_64_v2",)), _AVX2)
IOS_ARM64 = _apple("ios-arm64", "aarch64-ios.15.0", (_NEON,), "libortolan.a")
IOS_SIMULATOR_ARM64 = _apple(
    "ios-simulator-arm64", "aarch64-ios.15.0-simulator", (_NEON,), "libortolan.a"
)
IOS_SIMULATOR_X64 = _apple(
    "ios-simulator-x64", "x86_64-ios.15.0-simulator", _APPLE_X64[:1], "libortolan.a"
)
MACOS_ARM64 = _apple("macos-arm64", "aarch64-macos.11.0", (_NEON,), "libortolan.dylib", onnx=True)
MACOS_X64 = _apple("macos-x64", "x86_64-macos.11.0", _APPLE_X64, "libortolan.dylib", onnx=True)


def _windows(name: str, triple: str, sets: tuple[InstructionSet, ...], machine: str) -> Target:
    return Target(
        name, triple, sets, ("windows.cc",), "ortolan.dll", "coff", ("-mno-stack-arg-probe",),
        ("/dll", "/entry:DllMainCRTStartup", "/opt:ref,icf", "/Brepro", "/lldmingw",
         "/nodefaultlib", f"/machine:{machine}"),
        (("windows_kernel32.def", "kernel32.dll"), ("windows_synch.def", "synch.dll")),
        "wine" if machine == "x64" else "", onnx=True, records=True,
    )  # fmt: skip


WINDOWS_X64 = _windows("windows-x64", "x86_64-windows-gnu", (_SSE2, _AVX2, _AVX512), "x64")
WINDOWS_ARM64 = _windows("windows-arm64", "aarch64-windows-gnu", (_NEON,), "arm64")

TARGETS = {
    t.name: t
    for t in (
        LINUX_X64, LINUX_ARM64, LINUX_ARM64_HOST, LINUX_ARMV7, ANDROID_ARM64, ANDROID_ARM,
        ANDROID_X64, ANDROID_X86, IOS_ARM64,
        IOS_SIMULATOR_ARM64, IOS_SIMULATOR_X64, MACOS_ARM64, MACOS_X64, WINDOWS_X64,
        WINDOWS_ARM64, WEB, WEB_RELAXED, WEB_THREADS, WEB_RELAXED_THREADS, WASI,
    )
}  # fmt: skip

# What `ortolan build --target` takes: a platform, which may be several libraries.
PLATFORMS: dict[str, tuple[Target, ...]] = {
    "linux-x64": (LINUX_X64,),
    "linux-arm64": (LINUX_ARM64,),
    "android": (ANDROID_ARM64, ANDROID_ARM, ANDROID_X64, ANDROID_X86),
    "ios": (IOS_ARM64, IOS_SIMULATOR_ARM64, IOS_SIMULATOR_X64),
    "macos": (MACOS_ARM64, MACOS_X64),
    "windows-x64": (WINDOWS_X64,),
    "windows-arm64": (WINDOWS_ARM64,),
    "web": (WEB, WEB_RELAXED, WEB_THREADS, WEB_RELAXED_THREADS),
    "wasi": (WASI,),
}


def host_target() -> Target:
    """The target of this machine.

    Raises:
        LookupError: there is none yet.
    """
    machine = platform.machine().lower()
    name = {"x86_64": "linux-x64", "amd64": "linux-x64", "aarch64": "linux-arm64-host"}.get(machine)
    if not sys.platform.startswith("linux") or name is None:
        known = ", ".join(PLATFORMS)
        raise LookupError(f"no target for {sys.platform} on {machine}; there are: {known}")
    return TARGETS[name]
