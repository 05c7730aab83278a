# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Completion of `tare` for bash: verbs, options, names of losses, words that an option takes. Everything is read from the
# tool itself, so a new option needs nothing here.

_tare_options() { "$1" "$2" --help 2>/dev/null | grep -oE '^ {2,6}(-[a-zA-Z], )?--[a-z][a-z-]*=?' | grep -oE -- '--.*'; }

_tare() {
  local tool=${COMP_WORDS[0]} verb=${COMP_WORDS[1]} word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    mapfile -t COMPREPLY < <(compgen -W "$("$tool" --help | sed -n 's/^  tare \([a-z]*\) .*/\1/p') --help --version" -- "$word")
    return
  fi
  # "--loss=x" comes as three words where = parts words, as it does by default
  if [ "$word" = = ]; then word=; fi
  if [ "$before" = = ]; then before=${COMP_WORDS[COMP_CWORD - 2]}; fi
  case $before in
    --loss) set -- "$("$tool" info --json | sed 's/.*"losses": \[\([^]]*\)\].*/\1/' | tr -d '",')" ;;
    --device) set -- "auto cpu cuda" ;;
    --normalizer) set -- "sum elements rows positives targets ones weights" ;;
    --layout) set -- "$([ "$verb" = bench ] && echo rows nchw nhwc levels || echo rows nchw nhwc)" ;;
    --dtype) set -- "f32 f16 bf16$([ "$verb" != bench ] || echo " f64")" ;;
    --sweep) set -- "rows classes threads" ;;
    *) set -- "" ;;
  esac
  if [ -n "$1" ]; then
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "$word")
  elif [[ $word == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$(_tare_options "$tool" "$verb")" -- "$word")
    [[ ${COMPREPLY[0]} != *= ]] || compopt -o nospace 2>/dev/null || true
  else
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
    compopt -o filenames 2>/dev/null || true
  fi
}
complete -F _tare tare
