# SPDX-License-Identifier: Apache-2.0
# Doxygen's filter of include/tare.h: a paragraph of a comment that is indented is a table or a formula. It keeps its
# lines.
function is_indented(line) { return line ~ /^ \*   +[^ ]/ }
/^\/\*\*/ { in_comment = 1; was_blank = 0 }
in_comment && !in_table && was_blank && is_indented($0) { print " * @verbatim"; in_table = 1 }
in_table && !is_indented($0) { print " * @endverbatim"; in_table = 0 }
{ was_blank = ($0 == " *"); if (in_table) sub(/^ \*/, ""); print }
/\*\// { in_comment = 0 }
