/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tool's output appears whole or not at all: a full disk, a limit of file size, a signal, a gnuplot that fails or
 * hangs, two outputs in one place. Whatever happens, what was there before stays, and nothing else is left.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "support/devices.h"
#include "support/tool.h"

enum { PATH_BYTES = 512 };

TestSuite(tool_files, .init = tool_use_built, .timeout = 300);

static void expect_said(const tool_folder *folder, const char *name, const char *said, const char *what) {
  char *text = tool_text(folder, name);
  cr_assert_not_null(strstr(text, said), "%s: '%s' is not in '%s'", what, said, text);
  free(text);
}

static void write_text(const tool_folder *folder, const char *name, const char *text) {
  char path[PATH_BYTES];
  tool_file(path, sizeof path, folder, name);
  FILE *file = fopen(path, "w");
  cr_assert_not_null(file);
  fputs(text, file);
  cr_assert_eq(fclose(file), 0);
  chmod(path, 0755);
}

/* ---- Two things in one place ----------------------------------------------------------------------------------- */

Test(tool_files, outputs_in_one_place) {
  static const struct {
    const char *before, *outputs, *said;
  } cases[] = {
      {"true", "--grad-out a --row-loss-out a", "--grad-out writes there too"},
      {"true", "--grad-out a --row-loss-out ./a", "--grad-out writes there too"},
      {"true", "--grad-out a --row-loss-out $PWD/a", "--grad-out writes there too"},
      {"true", "--grad-out a --row-loss-out ../$(basename $PWD)/./a", "--grad-out writes there too"},
      {"ln -s . link", "--grad-out a --row-loss-out link/a", "--grad-out writes there too"},
      {"echo earlier >a; ln -s a link", "--grad-out a --row-loss-out link", "--grad-out writes there too"},
      {"echo earlier >a; ln a hard", "--grad-out hard --row-loss-out a", "--grad-out writes there too"},
      {"true", "--grad-out x.npy", "--logits reads this file"},
      {"true", "--row-loss-out ./y.npy", "--labels reads this file"},
      {"ln x.npy hard", "--grad-out hard", "--logits reads this file"},
      {"ln -s x.npy link", "--grad-out link", "--logits reads this file"},
      {"true", "--grad-out out", "standard output goes there too"},
      {"true", "--grad-out err", "standard error goes there too"},
      {"true", "--row-loss-out /proc/self/fd/1", "standard output goes there too"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const tool_folder folder = tool_folder_with_files();
    tool_shell(&folder, "cp x.npy x.kept; cp y.npy y.kept; %s", cases[i].before);
    cr_assert_eq(tool_shell(&folder, "\"$TARE\" $EVAL %s", cases[i].outputs), 1, "%s", cases[i].outputs);
    expect_said(&folder, "err", cases[i].said, cases[i].outputs);
    tool_expect_nothing_left(&folder, cases[i].outputs);
    cr_assert_eq(tool_shell(&folder, "cmp x.npy x.kept && cmp y.npy y.kept"), 0, "%s: the input changed",
                 cases[i].outputs);
    cr_assert_eq(tool_shell(&folder, "test ! -e a || grep -q earlier a"), 0, "%s: a changed", cases[i].outputs);
    tool_folder_remove(&folder);
  }
}

Test(tool_files, weights_over_their_counts) {
  const tool_folder folder = tool_folder_with_files();
  cr_assert_eq(tool_shell(&folder, "ln c.csv hard; \"$TARE\" weights --class-counts c.csv --beta 0.9 --out ./hard"), 1);
  expect_said(&folder, "err", "--class-counts reads this file", "weights");
  cr_assert_eq(tool_shell(&folder, "grep -q 7.5 c.csv"), 0);
  tool_folder_remove(&folder);
}

/* A link to a file stays a link, and the file it points to is replaced; a link to nothing is refused. */
Test(tool_files, links) {
  const tool_folder folder = tool_folder_with_files();
  tool_shell(&folder, "echo earlier >a; chmod 640 a; ln -s a link");
  cr_assert_eq(tool_shell(&folder, "\"$TARE\" $EVAL --grad-out link"), 0);
  cr_assert_eq(tool_shell(&folder, "test -L link && test ! -L a && head -c 6 a | tail -c 5 | grep -q NUMPY"), 0);
  cr_assert_eq(tool_shell(&folder, "test \"$(stat -c %%a a)\" = 640"), 0, "the permissions changed");
  tool_shell(&folder, "rm a");
  cr_assert_eq(tool_shell(&folder, "\"$TARE\" $EVAL --grad-out link"), 1);
  expect_said(&folder, "err", "--grad-out link: is a link to a missing file", "a dangling link");
  cr_assert_eq(tool_shell(&folder, "test -L link && test ! -e a"), 0, "the link was replaced");
  tool_shell(&folder, "rm link; ln -s link link");
  cr_assert_eq(tool_shell(&folder, "\"$TARE\" $EVAL --grad-out link"), 1);
  tool_expect_nothing_left(&folder, "a link to itself");
  cr_assert_eq(tool_shell(&folder, "\"$TARE\" $EVAL --grad-out ''"), 1);
  cr_assert_eq(tool_shell(&folder, "\"$TARE\" $EVAL --grad-out none/"), 1);
  cr_assert_eq(tool_shell(&folder, "\"$TARE\" $EVAL --grad-out x.npy/"), 1);
  tool_expect_nothing_left(&folder, "no file name");
  tool_folder_remove(&folder);
}

/* ---- What cannot be written ------------------------------------------------------------------------------------ */

/* Beyond a limit of file size the system sends SIGXFSZ, which would end the tool with its temporary file in place. */
Test(tool_files, a_limit_of_file_size) {
  const tool_folder folder = tool_folder_with_files();
  cr_assert_eq(tool_shell(&folder, "ulimit -f 1; \"$TARE\" $EVAL --grad-out a"), 1);
  tool_expect_nothing_left(&folder, "--grad-out");
  expect_said(&folder, "err", "--grad-out a: cannot write: ", "--grad-out");
  cr_assert_eq(tool_shell(&folder, "test ! -e a"), 0);
  cr_assert_eq(tool_shell(&folder, "ulimit -f 1; \"$TARE\" $EVAL --row-loss-out a"), 1);
  tool_expect_nothing_left(&folder, "--row-loss-out");
  cr_assert_eq(tool_shell(&folder, "ulimit -f 0; \"$TARE\" weights --class-counts c.csv --beta 0.9 --out a"), 1);
  tool_expect_nothing_left(&folder, "weights --out");
  cr_assert_eq(tool_shell(&folder, "test ! -e a"), 0);
  tool_folder_remove(&folder);
}

Test(tool_files, standard_output_is_full) {
  static const char *const commands[] = {"--help",
                                         "--version",
                                         "help",
                                         "eval --help",
                                         "eval --usage",
                                         "eval -?",
                                         "eval --version",
                                         "weights --help",
                                         "bench --help",
                                         "demo --help",
                                         "info --help",
                                         "info",
                                         "info --json",
                                         "$EVAL",
                                         "$EVAL --json",
                                         "$EVAL --json --grad-out a",
                                         "weights --class-counts c.csv --beta 0.9",
                                         "weights --class-counts c.csv --beta 0.9 --json --out a",
                                         "bench --rows 10 --classes 2 --repeat 1 --loss sigmoid-ce --threads 1",
                                         "bench --rows 10 --classes 2 --repeat 1 --loss sigmoid-ce --threads 1 --csv",
                                         "bench --rows 10 --classes 2 --repeat 1 --loss sigmoid-ce --threads 1 --json"};
  const tool_folder folder = tool_folder_with_files();
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
    cr_assert_eq(tool_shell(&folder, "\"$TARE\" %s >/dev/full", commands[i]), 1, "%s", commands[i]);
    expect_said(&folder, "err", "cannot write to standard output: No space left on device\n", commands[i]);
    char *text = tool_text(&folder, "err");
    cr_assert_eq(strchr(text, '\n')[1], '\0', "%s: said more than once: %s", commands[i], text);
    free(text);
    cr_assert_eq(tool_shell(&folder, "test ! -e a"), 0, "%s", commands[i]);
    tool_expect_nothing_left(&folder, commands[i]);
    cr_assert_eq(tool_shell(&folder, "\"$TARE\" %s >&-", commands[i]), 1, "%s, closed", commands[i]);
  }
  tool_folder_remove(&folder);
}

/* A disk of its own, in a name space of its own; the picture is longer than what is left on it. */
Test(tool_files, a_full_disk) {
  static const char *const outputs[] = {"--plot disk/a.svg", "--grad-out disk/a.npy", "--row-loss-out disk/a.npy"};
  const tool_folder folder = tool_folder_with_files();
  if (tool_shell(&folder, "unshare -rm sh -c 'mkdir disk && mount -t tmpfs -o size=8k none disk'") != 0) {
    tool_shell(&folder, "rmdir disk");
    tool_folder_remove(&folder);
    cr_skip_test("no name spaces for an unprivileged mount here");
  }
  for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++) {
    if (i == 0 && tool_shell(&folder, "command -v gnuplot") != 0) continue;
    cr_assert_eq(
        tool_shell(&folder,
                   "unshare -rm sh -c 'mount -t tmpfs -o size=8k none disk && head -c %d /dev/zero >disk/other && "
                   "\"$TARE\" $EVAL %s; status=$?; ls -A disk >&2; exit $status'",
                   i == 2 ? 8192 : 4096, outputs[i]),
        1, "%s", outputs[i]);
    char *text = tool_text(&folder, "err");
    cr_assert_not_null(strstr(text, "No space left on device\nother\n"), "%s: %s", outputs[i], text);
    free(text);
  }
  tool_shell(&folder, "rmdir disk");
  tool_folder_remove(&folder);
}

/* ---- gnuplot --------------------------------------------------------------------------------------------------- */

#define WITH_GNUPLOT "PATH=$PWD:$PATH \"$TARE\" $EVAL --plot a.svg --grad-out a.npy"

Test(tool_files, a_gnuplot_that_fails) {
  static const struct {
    const char *script, *said;
  } cases[] = {
      {"echo '<svg>'; exit 0", "picture is not complete"},
      {"cat >/dev/null; echo '<svg>'; echo 'disk full' >&2; exit 0", "picture is not complete: disk full"},
      {"exit 0", "picture is not complete"},
      {"exec >&- 2>&- <&-; exit 0", "picture is not complete"},
      {"cat; exit 0", "picture is not complete"},
      {"echo '<svg></svg>'; echo '    ^' >&2; echo 'line 3: bad' >&2; echo >&2; exit 3", "gnuplot failed: line 3: bad"},
      {"kill -9 $$", "gnuplot failed: it gave no reason"},
      {"yes '<svg>'", "more than 64 MiB"},
  };
  const tool_folder folder = tool_folder_with_files();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char script[256];
    snprintf(script, sizeof script, "#!/bin/sh\n%s\n", cases[i].script);
    write_text(&folder, "gnuplot", script);
    cr_assert_eq(tool_shell(&folder, WITH_GNUPLOT), 1, "%s", cases[i].script);
    expect_said(&folder, "err", cases[i].said, cases[i].script);
    tool_expect_nothing_left(&folder, cases[i].script);
  }
  if (!test_under_qemu()) { /* where a child that could not start is one that failed */
    cr_assert_eq(tool_shell(&folder, "mkdir empty; PATH=$PWD/empty \"$TARE\" $EVAL --plot a.svg"), 1);
    expect_said(&folder, "err", "gnuplot is not installed", "no gnuplot");
    tool_shell(&folder, "rmdir empty");
    tool_expect_nothing_left(&folder, "no gnuplot");
  }
  tool_folder_remove(&folder);
}

Test(tool_files, a_gnuplot_that_draws) {
  const tool_folder folder = tool_folder_with_files();
  write_text(&folder, "gnuplot", "#!/bin/sh\ncat >/dev/null\necho '<svg>'\nsleep 1\nprintf '</svg>\\n\\n'\n");
  cr_assert_eq(tool_shell(&folder, "ulimit -f 100; " WITH_GNUPLOT "; s=$?; cat a.svg; rm a.svg a.npy; exit $s"), 0);
  expect_said(&folder, "out", "<svg>\n</svg>\n\n", "the picture");
  tool_folder_remove(&folder);
}

/* What a hanging gnuplot has started is gone too. */
static void expect_all_gone(const tool_folder *folder, const char *what) {
  cr_assert_eq(tool_shell(folder, "test $(wc -l <pids) = 2"), 0, "%s: gnuplot did not start", what);
  cr_assert_eq(tool_shell(folder,
                          "sleep 0.2; for p in $(cat pids); do if kill -0 $p && ! grep -q '^State:.Z' /proc/$p/status; "
                          "then exit 1; fi; done"),
               0, "%s: gnuplot or its child still runs", what);
}

static const char hanging[] = "#!/bin/sh\nsleep 300 &\necho $$ >pids\necho $! >>pids\necho '<svg>'\nwait\n";

Test(tool_files, a_gnuplot_that_hangs) {
  if (test_small()) cr_skip_test("waits 20 seconds");
  const tool_folder folder = tool_folder_with_files();
  write_text(&folder, "gnuplot", hanging);
  const time_t before = time(NULL);
  cr_assert_eq(tool_shell(&folder, WITH_GNUPLOT), 1);
  cr_assert_lt(time(NULL) - before, 60);
  expect_said(&folder, "err", "gnuplot did not finish within 20 seconds", "hanging");
  expect_all_gone(&folder, "hanging");
  tool_expect_nothing_left(&folder, "hanging");
  tool_folder_remove(&folder);
}

Test(tool_files, signals_take_everything_along) {
  static const char *const names[] = {"TERM", "HUP", "USR1", "ALRM", "XCPU"};
  const tool_folder folder = tool_folder_with_files();
  write_text(&folder, "gnuplot", hanging);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const int status =
        tool_shell(&folder,
                   "rm -f pids; PATH=$PWD:$PATH \"$TARE\" $EVAL --plot a.svg --grad-out a.npy & "
                   "until test -s pids && test $(wc -l <pids) = 2; do sleep 0.05; done; ls -A; kill -%s $!; wait $!",
                   names[i]);
    cr_assert_gt(status, 128, "%s: exit %d", names[i], status);
    expect_said(&folder, "out", ".tare-", "the temporary file before");
    expect_all_gone(&folder, names[i]);
    tool_expect_nothing_left(&folder, names[i]);
  }
  tool_folder_remove(&folder);
}

Test(tool_files, arrays_are_npy_alone) {
  static const char *const outputs[] = {"$EVAL --grad-out", "$EVAL --row-loss-out",
                                        "weights --class-counts c.csv --beta 0.9 --out"};
  static const char *const names[] = {"a.csv", "a.npz", "a.npy.txt", "./a.svg"};
  const tool_folder folder = tool_folder_with_files();
  for (size_t k = 0; k < sizeof outputs / sizeof *outputs; k++) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
      cr_assert_eq(tool_shell(&folder, "\"$TARE\" %s %s", outputs[k], names[i]), 2, "%s %s", outputs[k], names[i]);
      expect_said(&folder, "err", "a file that ends in .npy", names[i]);
      tool_expect_nothing_left(&folder, names[i]);
    }
    cr_assert_eq(tool_shell(&folder, "\"$TARE\" %s a.NPY && rm a.NPY", outputs[k]), 0, "%s", outputs[k]);
    cr_assert_eq(tool_shell(&folder, "\"$TARE\" %s ../$(basename $PWD)/a && rm a", outputs[k]), 0, "%s", outputs[k]);
  }
  tool_folder_remove(&folder);
}

Test(tool_files, other_pictures_are_refused) {
  static const char *const names[] = {"a.jpg", "a", ".svg", ".png", "a.svg.gz", "a.svgz", "a.pdf.", ""};
  const tool_folder folder = tool_folder_with_files();
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    cr_assert_eq(tool_shell(&folder, "\"$TARE\" $EVAL --plot '%s'", names[i]), 2, "%s", names[i]);
    expect_said(&folder, "err", ".svg", names[i]);
    tool_expect_nothing_left(&folder, names[i]);
  }
  tool_folder_remove(&folder);
}

/* ---- Input through pipes --------------------------------------------------------------------------------------- */

Test(tool_files, input_through_a_pipe) {
  const tool_folder folder = tool_folder_with_files();
  cr_assert_eq(tool_shell(&folder, "\"$TARE\" $EVAL --row-loss-out a.npy"), 0);
  cr_assert_eq(tool_shell(&folder,
                          "cat y.npy | \"$TARE\" eval --loss ghm-c --device cpu --threads 1 --logits x.npy "
                          "--labels - --row-loss-out b.npy && cmp a.npy b.npy"),
               0);
  cr_assert_eq(tool_shell(&folder,
                          "\"$TARE\" weights --class-counts c.csv --beta 0.9 --out v.npy && "
                          "cat c.csv | \"$TARE\" weights --class-counts - --beta 0.9 --out w.npy && "
                          "cmp v.npy w.npy"),
               0);
  tool_folder_remove(&folder);
}

Test(tool_files, pipes_that_cannot_be_read) {
  static const struct {
    const char *command, *said;
  } cases[] = {
      {"cat x.npy | \"$TARE\" eval --loss sigmoid-ce --logits - --labels -", "--labels -: --logits has read standard"},
      {"\"$TARE\" eval --loss sigmoid-ce --logits - --labels y.npy </dev/null",
       "ends within its first 6 bytes (0 bytes"},
      {"head -c 200 x.npy | \"$TARE\" eval --loss sigmoid-ce --logits - --labels y.npy", "it is truncated"},
      {"\"$TARE\" eval --loss sigmoid-ce --logits - --labels y.npy <.", "--logits -: cannot read: Is a directory"},
      {"\"$TARE\" eval --loss sigmoid-ce --logits . --labels y.npy", "neither a file nor a pipe; expected a .npy file"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const tool_folder folder = tool_folder_with_files();
    cr_assert_eq(tool_shell(&folder, "%s", cases[i].command), 1, "%s", cases[i].command);
    expect_said(&folder, "err", cases[i].said, cases[i].command);
    tool_folder_remove(&folder);
  }
}
