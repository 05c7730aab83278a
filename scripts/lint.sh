# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2154 # dev sets build and may_install, packages.sh python
# ./dev format and ./dev lint.

c_files() { git ls-files --cached --others --exclude-standard '*.c' '*.h' '*.cpp' '*.cu' '*.cuh'; }

format() {
  want clang-format command -v clang-format
  install_wanted
  fetch_ruff
  c_files | xargs clang-format -i
  "$build/ruff/bin/ruff" format --quiet
}

lint() {
  want_build
  want_test
  want_lint
  install_wanted
  fetch_ruff
  fetch_mypy
  configure "$build"
  c_files | xargs clang-format --dry-run -Werror
  git ls-files --cached --others --exclude-standard dev .ci/run '*.sh' | xargs shellcheck
  "$build/ruff/bin/ruff" check --quiet
  "$build/ruff/bin/ruff" format --quiet --check
  "$build/mypy/bin/mypy" --cache-dir "$build/mypy/cache" --no-error-summary
  scripts/check_includes.py
  scripts/check_names.py "$build"
  scripts/check_functions.py
  scripts/check_lines.py
  git log -1 --format=%B | scripts/check_subject.sh /dev/stdin
  mkdir -p "$build/tidy" # the commands without gcc's reports, which clang does not know
  sed 's/-fopt-info[^ "]*//g' "$build/compile_commands.json" >"$build/tidy/compile_commands.json"
  git ls-files 'losses/*.c' 'core/*.c' 'cpu/*.c' 'tool/*.c' | xargs clang-tidy --quiet -p "$build/tidy"
  echo "lint: clean"
}
