"""A real filesystem from real files, without mounting anything, and its proof afterwards.

    SOURCE > copy > mke2fs -d > image ... image read back > e2fsck -fn, debugfs rdump > SHA-256
"""
from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

BLOCK_BYTES = 4096
IMAGE_UNIT_BYTES = 16 << 20
INODE_ROOM_BYTES = 16384          # what mke2fs gives one inode by default is at most this
SLACK = 1.15                      # block groups, extents, the journal's share
JOURNAL_BYTES = 24 << 20
# written while the interpreter runs, or not part of a standard library
LEFT_OUT = shutil.ignore_patterns("__pycache__", "site-packages", "dist-packages")
# fsck and mkfs stand where a user's PATH may not look
TOOL_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
TOOLS = {"mke2fs": "e2fsprogs", "e2fsck": "e2fsprogs", "debugfs": "e2fsprogs", "nbdcopy": "libnbd-bin"}

Manifest = dict[str, str]


class ToolError(Exception):
    """A program is missing or has failed."""


@dataclass(frozen=True)
class FileSystem:
    """An ext4 image and what is in it: path to SHA-256, or to where a link points."""
    image: Path
    size_bytes: int
    manifest: Manifest


def check_tools() -> None:
    """ToolError: names what is missing, and how to get it."""
    missing = [name for name in TOOLS if shutil.which(name, path=TOOL_PATH) is None]
    if missing:
        packages = " ".join(sorted({TOOLS[name] for name in missing}))
        raise ToolError(f"missing: {', '.join(missing)}. On Debian: sudo apt-get install {packages} "
                        "(`make packages-clients` does it when run as root)")


def run_tool(*command: str | Path, directory: Path | None = None, right_codes: tuple[int, ...] = (0,)) -> str:
    """Run a program to its end; ToolError with its own words if it failed."""
    words = [shutil.which(str(command[0]), path=TOOL_PATH) or str(command[0]), *map(str, command[1:])]
    done = subprocess.run(words, cwd=directory, stdin=subprocess.DEVNULL, text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode not in right_codes:
        raise ToolError(f"{Path(words[0]).name} ended with {done.returncode}: {done.stdout.strip()[-2000:]}")
    return done.stdout


def pack(source: Path, work: Path) -> FileSystem:
    """The files below `source` as an ext4 image in `work`."""
    tree = work / "source"
    shutil.copytree(source, tree, symlinks=True, ignore=LEFT_OUT)
    manifest = digest_tree(tree)
    if not manifest:
        raise ToolError(f"{source}: holds no files")
    size_bytes = image_bytes(tree)
    image = work / "filesystem.ext4"
    run_tool("mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK_BYTES), "-d", tree, image,
             f"{size_bytes >> 10}k")
    shutil.rmtree(tree)
    return FileSystem(image, size_bytes, manifest)


def image_bytes(tree: Path) -> int:
    """A size that holds the tree: its blocks, its inodes, a journal, and some."""
    files = [Path(folder) / name for folder, folders, names in os.walk(tree) for name in (*folders, *names)]
    data_bytes = sum(-(-file.lstat().st_size // BLOCK_BYTES) * BLOCK_BYTES for file in files)
    needed = max(int(data_bytes * SLACK), len(files) * INODE_ROOM_BYTES) + JOURNAL_BYTES
    return -(-needed // IMAGE_UNIT_BYTES) * IMAGE_UNIT_BYTES


def digest_tree(tree: Path) -> Manifest:
    """Every file below `tree` with its SHA-256, every symbolic link with its target."""
    manifest = {}
    for folder, folders, names in os.walk(tree):
        for name in (*folders, *names):
            path = Path(folder) / name
            place = str(path.relative_to(tree))
            if path.is_symlink():
                manifest[place] = f"-> {path.readlink()}"
            elif path.is_file():
                with path.open("rb") as file:
                    manifest[place] = hashlib.file_digest(file, "sha256").hexdigest()
    return manifest


def check_filesystem(image: Path) -> None:
    """ToolError unless e2fsck finds nothing to complain about; it changes nothing."""
    run_tool("e2fsck", "-f", "-n", image)


def check_files(image: Path, manifest: Manifest, work: Path) -> list[str]:
    """Take every file out of the image and compare. Returns what is wrong."""
    tree = work / "readback"
    tree.mkdir()
    # debugfs reads the image itself; names are relative so that no path needs quoting
    run_tool("debugfs", "-R", f"rdump / {tree.name}", image.resolve(), directory=work)
    found = digest_tree(tree)
    shutil.rmtree(tree)
    wrong = [f"{path}: missing" for path in sorted(manifest.keys() - found.keys())]
    wrong += [f"{path}: nobody put it there" for path in sorted(found.keys() - manifest.keys())]
    wrong += [f"{path}: {found[path]}, was {manifest[path]}"
              for path in sorted(manifest.keys() & found.keys()) if found[path] != manifest[path]]
    return wrong
