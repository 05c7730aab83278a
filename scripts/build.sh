# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2154 # dev sets build and may_install, packages.sh python
# Configuring and compiling, quiet unless it fails.

configure() { # configure FOLDER OPTION...
  folder=$1
  shift
  if [ ! -f "$folder/CMakeCache.txt" ] && command -v ninja >/dev/null; then set -- -G Ninja "$@"; fi
  mkdir -p "$folder"
  # One GPU generation: compiling for all of them takes minutes.
  # shellcheck disable=SC2086
  cmake -S . -B "$folder" -DCMAKE_CUDA_ARCHITECTURES=90 -DTARE_WERROR=ON "$@" ${TARE_CMAKE_ARGS:-} >"$folder/configure.log" 2>&1 || {
    cat "$folder/configure.log" >&2
    exit 1
  }
}

compile() { # compile FOLDER TARGET...
  folder=$1
  shift
  cmake --build "$folder" --parallel "$(nproc)" --target "$@" >"$folder/build.log" 2>&1 || {
    cat "$folder/build.log" >&2
    exit 1
  }
}

build_tool() { # build_tool ARGUMENT...: the tool, and what these arguments of it need
  want_build
  case " $* " in *" --plot"*) want gnuplot-nox command -v gnuplot ;; esac
  case " $* " in *" --head"*) want_blas ;; esac
  [ -z "${TARE_EMULATED:-}" ] || want_test
  install_wanted
  [ -f "$build/CMakeCache.txt" ] || echo "dev: building in $build (some seconds, once)" >&2
  if [ -n "${TARE_EMULATED:-}" ]; then
    configure "$build" -DTARE_TESTS=ON
    compile "$build" tare_tool_emulated
  else
    configure "$build"
    compile "$build" tare_tool
  fi
}
run_tool() { exec "$build/${TARE_EMULATED:+emulated/}bin/tare" "$@"; }
