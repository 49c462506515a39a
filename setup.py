"""Drives CMake for the native library; everything else stands in pyproject.toml.

    python setup.py build_ext --inplace      or      pip install --no-build-isolation .

both build mow_kernels/_native.so. Where a tool is missing or the build fails, the installation goes on without it, says
so, and the package runs on its reference backend. The CUDA kernels are part of it where there is nvcc and torch has
CUDA: docs/cuda.md. If they alone fail, the library is built without them, unless MOW_CUDA=1 insists on them. What a
compiler said of a failure is repeated at the end, and stands in mow_kernels/_native.log: pip hides what is printed.

The environment variable MOW_BUILD=0 leaves the library as it is, for an installation beside which it is built.
MOW_SANITIZE=address,undefined builds it with sanitizers; to run that, preload the sanitizer's library into Python:

    LD_PRELOAD=$(c++ -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 pytest tests/kernels/test_cpp_*.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import setuptools

if int(setuptools.__version__.split(".")[0]) < 77:  # older ones do not read this pyproject.toml
    sys.exit(f"mow-kernels: setuptools is {setuptools.__version__}; 77 or newer is needed: pip install -U setuptools")

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
NAME = "mow_kernels._native"
OLDEST_TORCH = (2, 11)
MOW_CUDA = os.environ.get("MOW_CUDA", "")
SHOWN = 20
"""Lines of a compiler's that are repeated."""


def tool(name: str) -> str | None:
    """A program on the path, or beside this Python, where pip puts it."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def torch_folder() -> Path:
    import torch

    if torch.__version__ < OLDEST_TORCH:
        raise ImportError(f"torch is {torch.__version__}; the native library needs {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]}")
    return Path(torch.__file__).parent


def nvcc() -> str | None:
    """CUDA's compiler: CUDACXX, the one on the path, or CUDA_HOME's."""
    found = os.environ.get("CUDACXX") or shutil.which("nvcc")
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return found or shutil.which("nvcc", path=os.path.join(home, "bin"))


def wants_cuda() -> bool:
    """Whether to build the CUDA kernels."""
    import torch

    if MOW_CUDA not in ("", "0", "1"):
        sys.exit(f"mow-kernels: MOW_CUDA is {MOW_CUDA!r}; it must be 0, 1 or unset")
    if MOW_CUDA == "1" and nvcc() is None:
        sys.exit("mow-kernels: MOW_CUDA is 1, but there is no nvcc (CUDACXX or CUDA_HOME may name it)")
    return MOW_CUDA == "1" or (MOW_CUDA == "" and torch.version.cuda is not None and nvcc() is not None)


def missing() -> str | None:
    """Why the native library cannot be built here, or None."""
    if os.environ.get("MOW_BUILD") == "0":
        return "MOW_BUILD is 0"
    if sys.platform == "win32":
        return "it is not built on Windows"
    if tool("cmake") is None:
        return "there is no cmake (pip install cmake)"
    if tool("ninja") is None and tool("make") is None:
        return "there is neither make nor ninja (pip install ninja)"
    if not any(map(tool, filter(None, (os.environ.get("CXX", "").split(" ")[0], "c++", "g++", "clang++")))):
        return "there is no C++ compiler"
    try:
        torch_folder()
    except ImportError as error:
        return f"{error} (with pip, add --no-build-isolation)"
    return None


class BuildFailed(Exception):
    """What the compiler said."""


def run(*command: str) -> None:
    """Runs a command and shows what it says.

    Raises:
        BuildFailed: it failed; the message has what it said from its first error on, or its last lines.
    """
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    if process.returncode != 0:
        errors = [number for number, line in enumerate(lines) if re.search(r"\berror\b", line, re.IGNORECASE)]
        first = errors[0] if errors else -SHOWN
        raise BuildFailed("\n".join(lines[first:][:SHOWN]))


class BuildNative(build_ext):
    def get_ext_filename(self, fullname: str) -> str:
        """A plain name: the library has no Python in it, so it is tied to no version of Python."""
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        log = target.with_suffix(".log")
        log.unlink(missing_ok=True)
        for cuda in (True, False) if wants_cuda() else (False,):
            try:
                built = self.compile(cuda)
                break
            except BuildFailed as error:
                message = f"left out: {'the CUDA kernels of ' if cuda else ''}{NAME}: the build failed:\n{error}"
                if MOW_CUDA == "1":
                    sys.exit(f"mow-kernels: {message}")
                say(message)
                with log.open("a") as file:
                    file.write(f"{message}\n")
        else:
            return
        partial = target.with_suffix(".partial")
        shutil.copyfile(built, partial)
        partial.replace(target)  # a process that has the old library loaded keeps it
        say(f"built: {NAME} {'with' if cuda else 'without'} CUDA kernels ({target})")

    def compile(self, cuda: bool) -> Path:
        """The library, in the folder for what is temporary."""
        build, torch = Path(self.build_temp).resolve() / "native", torch_folder()
        configure = [
            *("-S", str(ROOT), "-B", str(build)),
            *("-G", "Ninja" if tool("ninja") else "Unix Makefiles"),
            f"-DCMAKE_MAKE_PROGRAM={tool('ninja') or tool('make')}",
            f"-DMOW_TORCH_INCLUDE={torch / 'include'}",
            f"-DMOW_TORCH_LIB={torch / 'lib'}",
            f"-DMOW_SANITIZE={os.environ.get('MOW_SANITIZE', '')}",
            f"-DMOW_CUDA={'ON' if cuda else 'OFF'}",
        ]
        if cuda:
            cache = build / "CMakeCache.txt"
            before = cache.exists() and re.search(r"^CMAKE_CUDA_COMPILER:\w+=(.*)$", cache.read_text(), re.MULTILINE)
            if before and before[1] != nvcc():
                shutil.rmtree(build)  # with another compiler, CMake would forget its other arguments
            architectures = os.environ.get("MOW_CUDA_ARCH", "").replace(",", ";")
            configure.append(f"-DCMAKE_CUDA_COMPILER={nvcc()}")
            configure.append(
                f"-DMOW_CUDA_ARCHITECTURES={architectures}" if architectures else "-UMOW_CUDA_ARCHITECTURES"
            )
        run(tool("cmake"), *configure)
        run(tool("cmake"), "--build", str(build), "--parallel", str(os.cpu_count()))
        return build / "_native.so"


class PlainWheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        """Any Python 3 on this platform: the library uses torch's stable ABI and no Python."""
        platform = super().get_tag()[2]
        return "py3", "none", platform


def say(message: str) -> None:
    print(f"mow-kernels: {message}", flush=True)


reason = missing()
if reason and MOW_CUDA == "1":
    sys.exit(f"mow-kernels: MOW_CUDA is 1, but {reason}")
if reason:
    say(f"left out: {NAME}: {reason}; the package runs on its reference backend")
setup(
    ext_modules=[] if reason else [Extension(NAME, sources=[], optional=True)],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": PlainWheel},
)
