#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# use.sh: installs what is in dist/ and uses it. packaging/try.sh runs it in an empty system; do not run it elsewhere.
set -eu
apt-get update >/dev/null
quiet() { "$@" >/tmp/log 2>&1 || { cat /tmp/log; exit 1; }; }

echo "-- packages"
quiet apt-get install -y --no-install-recommends ./dist/*.deb
tare --version
python3 -c 'import tare; print("python3-tare", tare.__version__, tare.get_library())'
python3 -m tare --version
quiet apt-get install -y --no-install-recommends gcc libc6-dev pkg-config man-db
# shellcheck disable=SC2046
cc main.c $(pkg-config --cflags --libs tare) -o by_pkg_config && ./by_pkg_config
# shellcheck disable=SC2046
cc main.c -static-libgcc -Wl,-Bstatic -ltare -Wl,-Bdynamic -lm -lpthread -ldl -o statically && ./statically
for page in tare tare-eval tare-weights; do
  man "$page" | grep -A 1 '^NAME' | tail -n 1
done
ldconfig -p | grep libtare
quiet apt-get purge -y tare libtare-dev python3-tare 'libtare0*'
left=$(find /usr /etc -name 'libtare*' -o -name tare)
[ -z "$left" ] || {
  echo "purging leaves $left"
  exit 1
}

echo "-- archive"
mkdir /opt/unpacked
tar -x -z -f "$(find dist -name 'tare-*-Linux-*.tar.gz')" -C /opt/unpacked --strip-components 1
/opt/unpacked/bin/tare --version
PKG_CONFIG_PATH=/opt/unpacked/lib/pkgconfig
export PKG_CONFIG_PATH
# shellcheck disable=SC2046
cc main.c $(pkg-config --cflags --libs tare) "-Wl,-rpath,$(pkg-config --variable=libdir tare)" -o by_archive && ./by_archive

echo "-- wheel"
quiet apt-get install -y --no-install-recommends python3-venv
python3 -m venv /opt/venv
quiet /opt/venv/bin/pip install dist/*.whl
cd /
/opt/venv/bin/python -c '
import sys, numpy as np, tare
loss = tare.evaluate("sigmoid-ce", np.zeros((1000, 20), np.float32), np.zeros(1000, int), normalizer="elements").loss
print("Python", sys.version.split()[0], "NumPy", np.__version__, "Tare", tare.__version__, loss)
assert abs(loss - np.log(2)) < 1e-6'
