#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# completion.sh SOURCE TOOL: what bash proposes for some beginnings of a command line.
set -eu
# shellcheck source=/dev/null
. "$1/tool/completion/tare.bash"
tool=$2
expect() { # expect PROPOSALS WORD...: exactly these, in any order, for the last word
  read -ra wanted <<<"$1"
  shift
  COMP_WORDS=("$tool" "$@") COMP_CWORD=$#
  _tare
  found=$(printf '%s\n' "${COMPREPLY[@]}" | sort | tr '\n' ' ')
  if [ "$found" != "$(printf "%s\n" "${wanted[@]}" | sort | tr '\n' ' ')" ]; then
    echo "tare $*: proposed '$found', expected '${wanted[*]}'"
    exit 1
  fi
}
expect "eval" ev
expect "--gamma= --gamma-negative= --gamma-per-class= --gamma-positive=" eval --gam
expect "--momentum=" eval --mom
expect "--logits= --loss=" eval --lo # not "--loss" of the usage, too
expect "--json" info --js
expect "ghm-c ghm-r" eval --loss gh
expect "ghm-c ghm-r" eval --loss = gh
expect "rows nchw nhwc" eval --layout ""
expect "--class-counts=" weights --cl
expect "rows classes threads" bench --sweep ""
expect "f32 f16 bf16 f64" bench --dtype ""
expect "--compare=" bench --comp
expect "--csv" bench --cs
expect "--sweep=" bench --sw
echo "completion: verbs, options, losses and choices"
