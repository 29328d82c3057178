#!/usr/bin/env python3
"""Measure a shared directory (virtio-fs) against the distribution's virtiofsd under its QEMU: fio, an
archive that is unpacked, read and removed, and git, all in one run, one peer after the other, each in a
directory of its own on the same file system.

Ratios are QEMU's time for the same work divided by ours: above 1 we are faster.
"""
import io
import os
import shutil
import subprocess
import sys
import tarfile

import versus
from guest import Guest


def make_tree(path, files):
    """Directories of 50 files, as sources are: most are small, some are not."""
    with tarfile.open(path, "w") as archive:
        for number in range(files):
            data = (f"/* file {number} */\n" * (1 + number * 7919 % 900)).encode()
            entry = tarfile.TarInfo(f"tree/part-{number // 50}/file-{number}.c")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def git(folder, *arguments):
    subprocess.run(["git", "-c", "user.name=bench", "-c", "user.email=bench@example.org", "-C", folder, *arguments],
                   check=True, stdout=subprocess.DEVNULL)


def make_share(folder, files):
    """What both peers find in their directory."""
    os.mkdir(folder)
    make_tree(f"{folder}/tree.tar", files)
    with open(f"{folder}/fio.data", "wb") as data:
        for _ in range(64):
            data.write(os.urandom(1 << 20))
    if shutil.which("git"):
        work = f"{folder}/repository"
        os.mkdir(work)
        with tarfile.open(f"{folder}/tree.tar") as archive:
            archive.extractall(work)
        git(work, "init", "-q")
        git(work, "add", ".")
        git(work, "commit", "-q", "-m", "tree")


def main():
    parser = versus.arguments(__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="each measurement of fio takes one more")
    parser.add_argument("--files", type=int, default=2000, help="of the archive; a kernel has 80000")
    parser.add_argument("--folder", help="where the shared directories are made; it decides on their file system")
    parser.add_argument("--cache", default="auto", help="cache mode of both")
    args = parser.parse_args()
    folders = []

    def start(setup, peer):
        folder = os.path.join(args.folder or setup.work, f"share-{versus.file_name(peer)}")
        folders.append(folder)
        make_share(folder, args.files)
        return Guest(setup, peer, f"bench-share seconds={args.seconds}", args.disk, share=(folder, args.cache))

    try:
        rows = versus.measure(args, 600, start, lambda seconds: f"{seconds:.3f} s", same_result=True)
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    return versus.show(args, rows, "virtiofsd", "s", lambda seconds: f"{seconds:.3f}")


if __name__ == "__main__":
    sys.exit(main())
