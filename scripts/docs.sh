# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2154 # dev sets build and may_install
# ./dev docs: the site in docs/, from the header (Doxygen), the Python package, the tool and the pages. Pictures, the table
# of losses and the help texts come from the library and the tool that were just built.

want_docs() {
  want doxygen command -v doxygen
  want_python
}

prepare_docs() { # the Python with Sphinx, in the cache folder; its packages are those of docs/requirements.txt
  sphinx=${XDG_CACHE_HOME:-$HOME/.cache}/tare/docs
  if cmp -s docs/requirements.txt "$sphinx/requirements.txt"; then return 0; fi
  echo "dev: installing Sphinx in $sphinx (300 MB, once)" >&2
  rm -rf "$sphinx"
  make_environment "$sphinx" -r docs/requirements.txt || exit 1
  cp docs/requirements.txt "$sphinx/"
}

docs() {
  want_build
  want_docs
  install_wanted
  prepare_docs
  configure "$build"
  compile "$build" tare tare_tool
  folder=$(mkdir -p "$build/docs" && cd "$build/docs" && pwd)
  library=$(cd "$build" && pwd)/libtare.so
  {
    cat docs/Doxyfile
    echo "OUTPUT_DIRECTORY = \"$folder/doxygen\""
  } | doxygen - || exit 1
  TARE_DOXYGEN_XML=$folder/doxygen/xml TARE_LIBRARY=$library TARE_TOOL=$(cd "$build" && pwd)/bin/tare \
    "$sphinx/bin/sphinx-build" -q -W --keep-going -b html -d "$folder/doctrees" docs "$folder/html" || exit 1
  echo "docs: $build/docs/html/index.html"
}
