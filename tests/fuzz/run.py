"""`python -m tests.fuzz.run`: every target for some seconds each, guided by coverage.

libFuzzer through atheris, on the build of `.ci/scratch fuzzer`: native code counts its edges and
is watched by AddressSanitizer. New inputs are kept under --found; a crash leaves its input there.
"""
import argparse
import subprocess
import sys
from pathlib import Path

from tests.fuzz.seeds import CORPUS
from tests.fuzz.targets import TARGETS

INPUT_BYTES_MAX = 4096
INPUT_SECONDS_MAX = 20
MEMORY_MIB_MAX = 2048


def main() -> int:
    """Returns 1 if any target broke a promise."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=60, help="of each target")
    options.add_argument("--found", type=Path, default=Path("build/fuzz"))
    options.add_argument("--only", help="run this target in this process")
    options.add_argument("targets", nargs="*", metavar="TARGET", help="the targets (all of them)")
    asked = options.parse_args()
    names = [asked.only] if asked.only else asked.targets or list(TARGETS)
    if unknown := sorted(set(names) - set(TARGETS)):
        options.error(f"no target {', '.join(unknown)}: there are {', '.join(TARGETS)}")
    if asked.only:
        fuzz(asked.only, asked.seconds, asked.found)
    failed = [name for name in names if one(name, asked.seconds, asked.found)]
    print(f"fuzz: {len(names)} targets, {asked.seconds} s each, broken: {', '.join(failed) or 'none'}")
    return bool(failed)


def one(name: str, seconds: int, found: Path) -> int:
    """A target in a process of its own: libFuzzer ends the process it runs in."""
    print(f"== fuzz {name}", flush=True)
    return subprocess.run([sys.executable, "-m", "tests.fuzz.run", "--only", name, "--seconds", str(seconds),
                           "--found", str(found)], check=False).returncode


def fuzz(name: str, seconds: int, found: Path) -> None:
    """Does not return."""
    import atheris  # type: ignore[import-not-found]

    kept = found / name
    kept.mkdir(parents=True, exist_ok=True)
    target = TARGETS[name]
    target(b"")         # what is made once is made before anything is counted
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", f"-max_len={INPUT_BYTES_MAX}",
                   f"-timeout={INPUT_SECONDS_MAX}", f"-rss_limit_mb={MEMORY_MIB_MAX}", "-print_final_stats=1",
                   f"-artifact_prefix={kept}/crash-", str(kept), str(CORPUS / name)], target)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
