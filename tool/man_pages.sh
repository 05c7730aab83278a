#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# man_pages.sh TOOL VERSION FOLDER: tare.1, and tare-VERB.1 for each verb, by help2man from the tool's own help texts.
set -eu
tool=$1 version=$2 folder=$3
mkdir -p "$folder"
export ARGP_HELP_FMT=rmargin=200 # a usage of one line
verbs=$("$tool" --help | sed -n 's/^  tare \([a-z]*\) .*/\1/p')
[ -n "$verbs" ] || exit 1 # the tool does not run, or its help has another form
also=$folder/also
{
  echo "[see also]"
  printf '.BR tare (1)'
  for verb in $verbs; do printf ',\n.BR tare-%s (1)' "$verb"; done
  echo
} >"$also"

page() { # page NAME TEXT HELP-OPTION
  help2man --no-info --section 1 --manual Tare --source "Tare $version" --include "$also" --name "$2" \
    --version-string "$1 $version" --help-option "$3" --output "$folder/page" "$tool"
  sed -e "s/^\\.TH TARE /.TH $(echo "$1" | tr '[:lower:]' '[:upper:]') /" -e "s/^tare \\\\- /$1 \\\\- /" "$folder/page" >"$folder/$1.1"
}
page tare "loss kernels for class-imbalanced dense detection" --help
for verb in $verbs; do
  page "tare-$verb" "$("$tool" --help | sed -n "s/^  tare $verb *//p")" "$verb --help"
done
rm "$also" "$folder/page"
