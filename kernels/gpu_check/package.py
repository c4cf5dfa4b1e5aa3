"""Builds and collects what the check needs on a machine that has no Rust."""

import json
import shutil
import subprocess
import sys

from .steps import TESTS

MOST_BYTES = 64 << 20


def package(kernels, folder):
    """Release builds, without symbols."""
    root = kernels.parent
    folder.mkdir(parents=True, exist_ok=True)
    build = ["cargo", "test", "--release", "--no-run", "-p", "openclaw-kernels", "--message-format=json"]
    build += [word for test in TESTS for word in ("--test", test)]
    done = subprocess.run(build, cwd=root, stdout=subprocess.PIPE, check=True)
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] in TESTS:
            shutil.copy2(message["executable"], folder / message["target"]["name"])
    for kind, name in (("--example", "peer"), ("--bin", "gpu-steps")):
        subprocess.run(["cargo", "build", "--release", "-p", "openclaw-kernels", kind, name], cwd=root, check=True)
    for made in ("examples/libpeer.so", "gpu-steps"):
        shutil.copy2(root / "target/release" / made, folder)
    for name in (*TESTS, "libpeer.so", "gpu-steps"):
        subprocess.run(["strip", "--strip-unneeded", folder / name], check=True)
    for name in ("gpu-check", "compare.py", "peers.py"):
        shutil.copy2(kernels / name, folder)
    no_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(kernels / "gpu_check", folder / "gpu_check", dirs_exist_ok=True, ignore=no_caches)
    shutil.copytree(root / "tests/golden", folder / "vectors", dirs_exist_ok=True)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / (1 << 20):.1f} MiB")
    if size > MOST_BYTES:
        sys.exit("that is more than 64 MiB")
