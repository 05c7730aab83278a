# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2154 # dev sets build and may_install, packages.sh python
# What Tare needs of this machine, and how it is installed. `want` collects what is missing; `install_wanted` installs
# it where a verb may (may_install in dev), and otherwise ends with the list.

packages=
want() { # want PACKAGE COMMAND...: the package is needed if the command fails
  package=$1
  shift
  "$@" >/dev/null 2>&1 || packages="$packages $package"
}
has_header() { echo "#include <$1>" | cc -E -; }
has_cxx_header() { echo "#include <$1>" | c++ -E -xc++ -; }
has_library() { /sbin/ldconfig -p | grep -q "$1"; }

want_build() {
  want gcc command -v cc
  want libc6-dev has_header stdio.h
  want cmake command -v cmake
  command -v ninja >/dev/null || want make command -v make # what cmake takes by itself, in the README's lines too
  want pkg-config command -v pkg-config
  want libjansson-dev has_header jansson.h
  want libcsv-dev has_header csv.h
}
want_blas() { want libopenblas0 has_library libopenblas.so.0; } # loaded by name, never linked
want_test() {
  want g++ command -v c++
  want libcriterion-dev has_header criterion/criterion.h
  want libmpfr-dev has_header mpfr.h
  want valgrind command -v valgrind # counts instructions
  want libboost-context-dev has_cxx_header boost/context/detail/fcontext.hpp
  want_blas
  want gnuplot-nox command -v gnuplot
  want help2man command -v help2man # the man pages, which the test of the installation looks for
  want abigail-tools command -v abidiff # the binary interface is the recorded one
  want libxml2-utils command -v xmllint # the pictures are well-formed
  want libopenmpi-dev command -v mpicc # an MPI is enough, whosever it is
  want openmpi-bin command -v mpirun
}
want_python() {
  want python3-venv python3 -c 'import ensurepip, venv'
  want python3-dev has_python_header # for what torch.compile compiles
}
want_lint() {
  want clang-format command -v clang-format
  want clang-tidy command -v clang-tidy
  want shellcheck command -v shellcheck
  want universal-ctags has_universal_ctags # checks that every name can be found
}
want_fuzz() {
  want clang command -v clang
  want libclang-rt-dev sh -c 'echo "int LLVMFuzzerTestOneInput(void) { return 0; }" |
    clang -x c - -fsanitize=fuzzer -o /dev/null'
}
has_universal_ctags() { ctags --version | grep -q Universal; }
has_python_header() {
  python3 -c 'import os, sysconfig as s, sys; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))'
}

may_install= # set by the verbs that set up a machine
install_wanted() {
  [ -n "$packages" ] || return 0
  if [ -z "$may_install" ]; then
    echo "dev: missing (Debian's names):$packages" >&2
    echo "dev: ./dev setup installs what building, testing and lint need" >&2
    exit 1
  fi
  if ! command -v apt-get >/dev/null; then
    echo "dev: missing, and there is no apt-get to install it (these are Debian's names):$packages" >&2
    exit 1
  fi
  root=
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
      echo "dev: missing; to install it, run as root or with sudo: apt-get install$packages" >&2
      exit 1
    }
    root=sudo
  fi
  echo "dev: installing$packages" >&2
  log=$(mktemp)
  # shellcheck disable=SC2086
  if ! { $root apt-get update && $root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends $packages; } >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    echo "dev: could not install$packages" >&2
    exit 1
  fi
  rm -f "$log"
  packages=
}

# ---- from PyPI ------------------------------------------------------------------------------------------------------

make_environment() { # make_environment FOLDER PACKAGE...: a Python environment, or a reason and a failure
  folder=$1
  shift
  if ! { python3 -m venv "$folder" && "$folder/bin/pip" install --quiet "$@"; } >&2; then
    echo "dev: could not install $* in $folder" >&2
    return 1
  fi
}

# nvdisasm and cuobjdump, with which tests/checks/cuda_report.sh reads the machine code of the build. A CUDA toolkit may
# lack them; without them the report compiles once more, and counts instructions in the PTX.
fetch_disassembler() { # fetch_disassembler FOLDER
  nvcc=$(command -v nvcc || command -v /usr/local/cuda/bin/nvcc) || return 0
  missing=
  for tool in nvdisasm cuobjdump; do
    if command -v "$tool" >/dev/null || [ -x "$(dirname "$(readlink -f "$nvcc")")/$tool" ] ||
      [ -n "$(find "$1" -path "*/bin/$tool" 2>/dev/null)" ]; then continue; fi
    missing="$missing nvidia-cuda-$tool"
  done
  [ -n "$missing" ] || return 0
  echo "dev: fetching$missing from PyPI, once" >&2
  # shellcheck disable=SC2086
  if ! make_environment "$1" $missing 2>/dev/null; then
    rm -rf "$1"
    echo "dev: no$missing; instructions are counted in the PTX" >&2
  fi
}

has_modules() { # has_modules PYTHON MODULE...
  "$1" -c 'import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, sys.argv[2:])))' "$@" 2>/dev/null
}

# Sets `python` to the Python that runs the tests of the package. TARE_TORCH=ON installs PyTorch for them (gigabytes,
# once); without it PyTorch is used where it is. TARE_TORCH=OFF leaves it out. NumPy and pytest are small and always
# there.
prepare_python() {
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/tare
  python=python3
  want_python
  (install_wanted) || true
  packages=
  if [ "${TARE_TORCH:-}" != OFF ]; then
    for python in "$cache/torch/bin/python" python3; do
      if has_modules "$python" torch numpy pytest; then
        prepare_detector
        return 0
      fi
    done
    if [ "${TARE_TORCH:-}" = ON ]; then
      echo "dev: installing PyTorch in $cache/torch (gigabytes, once)" >&2
      if make_environment "$cache/torch" torch numpy pytest; then
        python=$cache/torch/bin/python
        prepare_detector
        return 0
      fi
    fi
    echo "dev: no PyTorch, so its tests are skipped; TARE_TORCH=ON ./dev test installs it (gigabytes, once)" >&2
  fi
  if has_modules python3 numpy pytest; then return 0; fi
  python=$cache/numpy/bin/python
  if ! has_modules "$python" numpy pytest; then
    echo "dev: installing NumPy and pytest in $cache/numpy, once" >&2
    make_environment "$cache/numpy" numpy pytest || python=python3
  fi
}

# What the training example needs, 40 MB, for its test. It goes only into an environment of our own.
prepare_detector() {
  if [ "$python" = python3 ] || has_modules "$python" pycocotools PIL tqdm matplotlib; then return 0; fi
  echo "dev: installing what examples/train_detector.py needs, once" >&2
  "${python%/python}/pip" install --quiet -r examples/detector/requirements.txt >&2 ||
    echo "dev: could not install it, so the test of the example is skipped" >&2
}

# mypy checks the type hints of the Python package. NumPy's are needed for that, PyTorch's are not.
mypy=mypy==2.4.1
fetch_mypy() {
  if [ "$(cat "$build/mypy/version" 2>/dev/null)" = "$mypy" ]; then return 0; fi
  want_python
  install_wanted
  echo "dev: fetching $mypy from PyPI, once" >&2
  rm -rf "$build/mypy"
  mkdir -p "$build"
  if ! make_environment "$build/mypy" "$mypy" numpy; then
    rm -rf "$build/mypy"
    exit 1
  fi
  echo "$mypy" >"$build/mypy/version"
}

# ruff comes from PyPI: Debian has none, and only one version can say how files are to be laid out.
ruff_version() { sed -n 's/^required-version = "==\(.*\)"$/\1/p' pyproject.toml; }
fetch_ruff() {
  if [ "$("$build/ruff/bin/ruff" --version 2>/dev/null)" = "ruff $(ruff_version)" ]; then return 0; fi
  want_python
  install_wanted
  echo "dev: fetching ruff $(ruff_version) from PyPI, once" >&2
  mkdir -p "$build"
  if ! make_environment "$build/ruff" "ruff==$(ruff_version)"; then
    rm -rf "$build/ruff"
    exit 1
  fi
}
