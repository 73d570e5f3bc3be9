"""The native extensions: which there are, and how each is compiled.

Rules:
1. Every `.pyx` of `repstore/_fast` is an extension, and so is every `.pyx` of `bindings/nbd`
   (package `repstore_nbd`). C sources beside them are named in C_SOURCES.
2. The library builds with a C compiler alone. What needs liburing is left out, with one
   line, where liburing >= 2.3 is not there; it is linked statically where an archive is.
3. Cython's memoryview code is compiled once, into `_cyutility`, for all of `_fast`.
4. `REPSTORE_TEST_EXTENSIONS=1` also builds the doubles that tests are made of.
"""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError

FAST = Path("src/repstore/_fast")
SHARED_UTILITY = "repstore._fast._cyutility"
C_SOURCES = {"checksum": ["crc32c.c"]}
NEEDS_LIBURING = {"repstore._fast.uring"}
# they come after those of CC and CFLAGS: a build of another optimization says so here
OPTIMIZATION = os.environ.get("REPSTORE_OPTIMIZATION", "-O3 -g0").split()
COMPILE_FLAGS = [*OPTIMIZATION, "-fvisibility=hidden", "-Wall", "-Wno-unused-function", "-Wno-sign-compare"]
DIRECTIVES = {
    "language_level": 3,
    "embedsignature": True,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
}
# DEFER_TASKRUN came with liburing 2.3: what lacks it does not compile
LIBURING_PROBE = """
#include <liburing.h>
int main(void) {
    struct io_uring ring;
    return io_uring_queue_init(1, &ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN)
        + io_uring_get_events(&ring);
}
"""


def extension(name: str, source: Path) -> Extension:
    """One extension module out of one .pyx and the C files that belong to it."""
    c_sources = [source.parent / c_source for c_source in C_SOURCES.get(source.stem, [])]
    headers = [*source.parent.glob("*.h"), *FAST.glob("*.h")]
    return Extension(
        name,
        [str(path) for path in (source, *c_sources)],
        include_dirs=[str(source.parent), str(FAST)],
        depends=sorted({str(path) for path in headers}),
        extra_compile_args=COMPILE_FLAGS,
    )


def extensions_under(folder: Path, package: str, pattern: str = "*.pyx") -> list[Extension]:
    return [extension(f"{package}.{path.stem}", path) for path in sorted(folder.glob(pattern))]


def core_extensions() -> list[Extension]:
    """The data plane, sharing one copy of Cython's utility code."""
    utility = Extension(
        SHARED_UTILITY,
        [str(FAST / "_cyutility.c")],
        extra_compile_args=COMPILE_FLAGS,
    )
    return cythonize(
        [*extensions_under(FAST, "repstore._fast"), utility],
        build_dir="build/cython",
        include_path=["src"],
        compiler_directives=DIRECTIVES,
        shared_utility_qualified_name=SHARED_UTILITY,
    )


def outer_extensions() -> list[Extension]:
    """What stands outside the core and so may not lean on its utility module."""
    outer = extensions_under(Path("bindings/nbd"), "repstore_nbd")
    if os.environ.get("REPSTORE_TEST_EXTENSIONS") == "1":
        for folder in sorted({path.parent for path in Path("tests").glob("**/_*.pyx")}):
            outer += extensions_under(folder, ".".join(folder.parts), "_*.pyx")
    if not outer:
        return []
    return cythonize(
        outer,
        build_dir="build/cython",
        include_path=["src", "bindings/nbd", "."],
        compiler_directives=DIRECTIVES,
    )


def pkg_config(*options: str) -> list[str]:
    try:
        answer = subprocess.run(
            ["pkg-config", *options, "liburing"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return []
    return answer.stdout.split()


class BuildExtensions(build_ext):
    """build_ext that finds liburing with the compiler in use, or goes on without it."""

    def build_extensions(self) -> None:
        link_flags = self.liburing_link_flags()
        for wanting in [ext for ext in self.extensions if ext.name in NEEDS_LIBURING]:
            if link_flags is None:
                print(
                    f"repstore: liburing >= 2.3 not found: {wanting.name} is left out, "
                    "I/O goes through the thread pool",
                    file=sys.stderr,
                )
                self.extensions.remove(wanting)
            else:
                wanting.extra_compile_args = wanting.extra_compile_args + pkg_config("--cflags")
                wanting.extra_link_args = link_flags
        super().build_extensions()

    def liburing_link_flags(self) -> list[str] | None:
        search = pkg_config("--libs-only-L")
        for flags in (["-Wl,-Bstatic", "-luring", "-Wl,-Bdynamic"], ["-luring"]):
            if self.links(LIBURING_PROBE, pkg_config("--cflags"), search + flags):
                return search + flags
        return None

    def links(self, program: str, compile_flags: list[str], link_flags: list[str]) -> bool:
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch, "probe.c")
            source.write_text(program)
            try:
                objects = self.compiler.compile(
                    [str(source)], output_dir="/", extra_postargs=[*compile_flags, "-w"]
                )
                self.compiler.link_executable(
                    objects, "probe", output_dir=scratch, extra_postargs=link_flags
                )
            except CCompilerError:
                return False
            return True


packages = {"repstore": "src/repstore"}
for path in sorted(Path("src/repstore").glob("**/__init__.py")):
    packages[".".join(path.parent.relative_to("src").parts)] = str(path.parent)
if Path("bindings/nbd/__init__.py").exists():
    packages["repstore_nbd"] = "bindings/nbd"

setup(
    packages=list(packages),
    package_dir={"": "src", "repstore_nbd": "bindings/nbd", "tests": "tests"},
    ext_modules=[*core_extensions(), *outer_extensions()],
    cmdclass={"build_ext": BuildExtensions},
)
