#!/usr/bin/env python3
"""Builds the plugin by cargo for meson.build, and tells ninja through a depfile what the plugin was made of.

Needs nothing but Python's standard library; touches only the build folder that it is given.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path


def version_of(manifest):
    """The version of the package of a Cargo.toml, which is that of all crates."""
    package = re.search(r"^\[package\]$(.*?)(?=^\[|\Z)", manifest.read_text(), re.M | re.S)
    version = package and re.search(r'^version\s*=\s*"([^"]+)"', package.group(1), re.M)
    if not version:
        sys.exit(f"no version in [package] of {manifest}")
    return version.group(1)


def build(args):
    """Runs cargo and copies the plugin to where meson wants it."""
    # Other than --output and --depfile, which the build folder knows by relative names.
    args.manifest, args.target_dir = args.manifest.resolve(), args.target_dir.resolve()
    command = [args.cargo, "build", "--locked", "--lib", "--manifest-path", args.manifest]
    command += ["--target-dir", args.target_dir, "--profile", args.profile]
    # A target of its own may be named by CARGO_BUILD_TARGET (cross builds): cargo then adds a folder.
    triple = os.environ.get("CARGO_BUILD_TARGET", "")
    # In the source: cargo looks for .cargo/config.toml, which names vendored crates, from its working directory upwards.
    status = subprocess.run([str(part) for part in command], check=False, cwd=args.manifest.parent).returncode
    if status != 0:
        sys.exit(status)
    folder = args.target_dir / triple / ("debug" if args.profile == "dev" else args.profile)
    shutil.copy2(folder / args.output.name, args.output)
    args.output.touch()
    write_depfile(args, folder / f"{args.output.stem}.d")


def write_depfile(args, cargo_depfile):
    """Cargo's own depfile under the name of meson's target, and the files that cargo does not list there."""
    sources = cargo_depfile.read_text().split(": ", 1)[-1].strip() if cargo_depfile.exists() else ""
    root = args.manifest.parent
    manifests = [root / "Cargo.toml", *sorted(root.glob("crates/*/Cargo.toml"))]
    others = [root / "Cargo.lock", root / "build.rs"]
    more = " ".join(str(path).replace(" ", "\\ ") for path in manifests + others)
    args.depfile.write_text(f"{args.output}: {sources} {more}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version-of", type=Path, help="print the package's version and end")
    parser.add_argument("--cargo", default="cargo")
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--target-dir", type=Path)
    parser.add_argument("--profile", default="release")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--depfile", type=Path)
    args = parser.parse_args()
    if args.version_of:
        print(version_of(args.version_of))
    else:
        build(args)


if __name__ == "__main__":
    main()
