"""Sets up a checkout: `.venv`, the compiled runtime and, for the tests, Node and system packages.

`setup_env.py demo` installs what running models needs, `setup_env.py test` everything. A second run
finds stamps and does nothing. What a machine cannot have is written to `build/not_installed.json`;
the test runner prints it. Only the standard library is used: nothing is installed yet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
VENV_PYTHON = VENV_BIN / ("python.exe" if os.name == "nt" else "python")
PYTHON_STAMPS = VENV / "ortolan-stamps.json"
NODE_FOLDER = ROOT / "build" / "node"
NODE_STAMPS = NODE_FOLDER / "ortolan-stamps.json"
NODE_PACKAGES = ("node@24.21.0", "playwright-core@1.65.1")
NOT_INSTALLED = ROOT / "build" / "not_installed.json"
APT_FAILED = "apt-get could not install"
OLDEST_PYTHON = (3, 11)
# What the compiled library is made of; a change of these compiles again.
LIBRARY_SOURCES = (
    "native",
    "src/ortolan/build",
    "src/ortolan/catalog",
    "hatch_build.py",
    "pyproject.toml",
)


class Tool(NamedTuple):
    """A program of the system that some tests use, and the apt packages that bring it."""

    name: str
    programs: tuple[str, ...]
    packages: tuple[str, ...]
    user: str


TOOLS = (
    Tool("Node", ("node",), ("nodejs",), "the web runtime's cases"),
    Tool("npm", ("npm",), ("npm",), "Node 24 and the browser driver"),
    Tool(
        "Chromium",
        ("chromium", "chromium-browser", "google-chrome"),
        ("chromium",),
        "the web runtime's cases in a browser",
    ),
    Tool("qemu-aarch64", ("qemu-aarch64",), ("qemu-user",), "the arm64 library's cases"),
    Tool(
        "32-bit C library",
        ("/lib/ld-linux.so.2",),
        ("libc6-i386",),
        "the x86 library's cases",
    ),
    Tool(
        "Clang 19",
        ("clang++-19",),
        ("clang-19", "libclang-rt-19-dev"),
        "the runtime under sanitizers, on damaged files",
    ),
)


def say(message: str) -> None:
    """Prints one line at once, so that it stands before what a child prints."""
    print("[set-up] " + message, flush=True)


def stop(message: str) -> NoReturn:
    """Ends the set-up with a message that says what to do."""
    sys.exit("[set-up] " + message)


def run(command: list[str], environment: dict[str, str] | None = None) -> bool:
    """Runs a command in the checkout with its output shown; tells if it succeeded."""
    try:
        return subprocess.call(command, cwd=str(ROOT), env=environment) == 0
    except OSError as error:
        say(str(error))
        return False


def digest(texts: list[str], sources: tuple[str, ...] = ()) -> str:
    """A stamp of some texts and of the content of files and folders of the checkout."""
    total = hashlib.sha256("\0".join(texts).encode())
    for source in sources:
        path = ROOT / source
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and file.suffix != ".pyc":
                total.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return total.hexdigest()


def read_json(path: Path) -> dict[str, str]:
    """The stamps in a file; none if it is absent or damaged."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: dict[str, str]) -> None:
    """Writes stamps or notes, with the folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def is_new_enough(python: str) -> bool:
    """Tells if the command runs a Python that Ortolan supports."""
    probe = f"import sys; sys.exit(sys.version_info < {OLDEST_PYTHON})"
    try:
        return subprocess.call([python, "-c", probe], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def find_python() -> str:
    """This Python, else the newest supported one on the PATH."""
    names = [sys.executable] + [f"python3.{minor}" for minor in range(19, 10, -1)]
    for name in names:
        if is_new_enough(name):
            return name
    stop(
        "Ortolan needs Python 3.11 or later, this is {}.{}. Install one, or name it: "
        "make PYTHON=/path/to/python3.11 ...".format(*sys.version_info[:2])
    )


def can_use_apt() -> bool:
    """Tells if system packages can be installed: Debian or a relative, as root."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return is_root and shutil.which("apt-get") is not None


def apt_install(packages: list[str]) -> bool:
    """Installs system packages without questions."""
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    return run(command, environment)


def apt_update() -> bool:
    """Refreshes the system's package lists."""
    say("reading the system's package lists (apt-get update)")
    return run(["apt-get", "update", "-qq"])


def ensure_venv() -> None:
    """Makes `.venv`; Debian keeps a part of the venv module in a package of its own."""
    if VENV_PYTHON.exists() and is_new_enough(str(VENV_PYTHON)):
        return
    python = find_python()
    say(f"making .venv with {python}")
    command = [python, "-m", "venv", "--clear", str(VENV)]
    if run(command):
        return
    if can_use_apt() and apt_update() and apt_install(["python3-venv"]) and run(command):
        return
    shutil.rmtree(VENV, ignore_errors=True)
    stop(
        f"{python} cannot make a virtual environment (its message is above). On Debian and Ubuntu "
        "its package is python3-venv; then run this again, or name another Python: "
        "make PYTHON=/path/to/python3.11 ..."
    )


def requirements(everything: bool) -> list[str]:
    """The packages that the checkout's pyproject.toml asks for, the build's included."""
    code = "import json, tomllib; print(json.dumps(tomllib.load(open('pyproject.toml', 'rb'))))"
    text = subprocess.check_output([str(VENV_PYTHON), "-c", code], cwd=str(ROOT))
    content = json.loads(text)
    project = content["project"]
    packages = content["build-system"]["requires"] + project["dependencies"]
    if everything:
        packages += project["optional-dependencies"]["test"]
    return sorted(packages)


def ensure_packages(everything: bool) -> None:
    """Installs the Python packages from their registry."""
    stamps = read_json(PYTHON_STAMPS)
    key = "test packages" if everything else "packages"
    packages = requirements(everything)
    stamp = digest(packages)
    if stamps.get(key) == stamp:
        return
    say(f"installing {len(packages)} Python packages and what they need")
    options = ["--quiet", "--disable-pip-version-check"]
    if not run([str(VENV_PYTHON), "-m", "pip", "install", *options, *packages]):
        stop("pip could not install the packages (its message is above); run this again")
    stamps[key] = stamp
    write_json(PYTHON_STAMPS, stamps)


def ensure_project() -> None:
    """Installs the checkout itself, in place; its build hook compiles the runtime."""
    stamps = read_json(PYTHON_STAMPS)
    # The place is part of it: an installation in place stays with a checkout that was copied.
    stamp = digest([str(ROOT)], LIBRARY_SOURCES)
    library = ROOT / "src" / "ortolan" / "lib"
    if stamps.get("project") == stamp and library.is_dir() and any(library.iterdir()):
        return
    say("compiling the runtime and installing the package in place")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    if not run([str(VENV_PYTHON), "-m", "pip", "install", *options, "--editable", "."]):
        stop("the package could not be built (the message is above)")
    stamps["project"] = stamp
    write_json(PYTHON_STAMPS, stamps)


def is_present(tool: Tool) -> bool:
    """Tells if one of the tool's programs is on the PATH."""
    return any(shutil.which(program) for program in tool.programs)


def ensure_tools() -> dict[str, str]:
    """Installs the system's programs that the tests use; returns the missing ones with reasons.

    A package that could not be installed is not tried again until its note is removed
    (`make clean`) or the program appears.
    """
    missing = [tool for tool in TOOLS if not is_present(tool)]
    before = read_json(NOT_INSTALLED)
    wanted = [tool for tool in missing if APT_FAILED not in before.get(tool.name, "")]
    if wanted and can_use_apt() and apt_update():
        for tool in wanted:
            say(f"installing {tool.name} for {tool.user}")
            apt_install(list(tool.packages))
    how = APT_FAILED if can_use_apt() else "as root, or by hand, install"
    return {
        tool.name: f"needed for {tool.user}; {how} {' '.join(tool.packages)}"
        for tool in missing
        if not is_present(tool)
    }


def ensure_node() -> dict[str, str]:
    """Installs the npm packages that the tests use; returns what is missing with the reason."""
    npm = shutil.which("npm")
    if npm is None:
        return {}
    stamp = digest(list(NODE_PACKAGES))
    if read_json(NODE_STAMPS).get("packages") == stamp:
        return {}
    say("installing " + " and ".join(NODE_PACKAGES))
    NODE_FOLDER.mkdir(parents=True, exist_ok=True)
    options = ["--prefix", str(NODE_FOLDER), "--silent", "--no-audit", "--no-fund"]
    if not run([npm, "install", *options, *NODE_PACKAGES]):
        return {"npm packages": "npm could not install " + " and ".join(NODE_PACKAGES)}
    write_json(NODE_STAMPS, {"packages": stamp})
    return {}


def main() -> None:
    """Sets up what the named use needs and says what this machine cannot have."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("use", choices=("demo", "test"))
    everything = parser.parse_args().use == "test"
    ensure_venv()
    ensure_packages(everything)
    ensure_project()
    if everything:
        missing = ensure_tools()
        missing.update(ensure_node())
        write_json(NOT_INSTALLED, missing)
        for name, reason in missing.items():
            say(f"not installed: {name}: {reason}")


if __name__ == "__main__":
    main()
