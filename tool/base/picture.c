/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gnuplot runs as a child, without a shell and without the user's own settings. It gets its script and gives its
 * picture through pipes, so that every byte of the file is written, and checked, here.
 */
#define _GNU_SOURCE
#include "picture.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "child.h"
#include "outfile.h"
#include "problem.h"

/* Longer than any picture takes, even on a busy machine. */
enum { MOST_SECONDS = 20, MOST_BYTES = 64 << 20 };

/* A picture is complete if it begins and ends as its format says. */
static const struct format {
  const char *extension, *start, *end;
} formats[] = {
    {".svg", "<", "</svg>"}, {".png", "\x89PNG\r\n\x1a\n", "IEND\xae\x42\x60\x82"}, {".pdf", "%PDF-", "%%EOF"}};

static const struct format *format_of(const char *path) {
  const char *ending = strrchr(path, '.');
  for (size_t index = 1; ending && index < sizeof formats / sizeof formats[0]; index++)
    if (strcasecmp(ending, formats[index].extension) == 0) return &formats[index];
  return &formats[0];
}

void put_inside_quotes(FILE *script, const char *text) {
  for (; *text; text++) {
    if ((unsigned char)*text < 0x20) continue;
    if (*text == '\'') fputc('\'', script);
    fputc(*text, script);
  }
}

void put_quoted(FILE *script, const char *text) {
  fputc('\'', script);
  put_inside_quotes(script, text);
  fputc('\'', script);
}

/* White behind every picture, so that it can be read where the page is dark. */
static void put_terminal(FILE *script, const struct picture *picture) {
  const int width = picture->width, height = picture->height;
  const char *extension = format_of(picture->path)->extension;
  fputs("set encoding utf8\n", script);
  if (strcmp(extension, ".svg") == 0)
    fprintf(script,
            "set terminal svg size %d,%d enhanced font 'Helvetica,Arial,sans-serif,14' background rgb 'white'\n", width,
            height);
  else if (strcmp(extension, ".png") == 0)
    fprintf(script,
            "set terminal pngcairo size %d,%d enhanced font 'Sans,14' fontscale 1.45 linewidth 2 pointscale 2\n",
            2 * width, 2 * height);
  else
    fprintf(script, "set terminal pdfcairo size %.3fin,%.3fin enhanced font 'Sans,14' fontscale 0.72\n", width / 96.0,
            height / 96.0);
}

/* gnuplot exits with status 0 even if it could not write. A picture is complete only if it has its end. */
static bool is_whole(const struct child_answer *answer, const struct format *format) {
  const size_t start = strlen(format->start), end = strlen(format->end);
  const bool is_text = format->end[end - 1] > 0; /* blanks may follow */
  size_t length = answer->length;
  while (is_text && length && isspace((unsigned char)answer->text[length - 1])) length--;
  return length >= start + end && memcmp(answer->text, format->start, start) == 0 &&
         memcmp(answer->text + length - end, format->end, end) == 0;
}

static int say_why(enum child_end end, const struct child_answer *answer, const char *path) {
  switch (end) {
    case CHILD_MISSING:
      return complain("--plot %s: gnuplot is not installed; on Debian: apt-get install gnuplot-nox", path);
    case CHILD_NOT_RUN:
      return complain("--plot %s: cannot run gnuplot: %s", path, strerror(errno));
    case CHILD_TOO_LATE:
      return complain("--plot %s: gnuplot did not finish within %d seconds, and was killed", path, MOST_SECONDS);
    case CHILD_TOO_LARGE:
      return complain("--plot %s: gnuplot drew more than %d MiB, and was killed", path, MOST_BYTES >> 20);
    case CHILD_FAILED:
      return complain("--plot %s: gnuplot failed: %s", path, *answer->reason ? answer->reason : "it gave no reason");
    default:
      return complain("--plot %s: gnuplot's picture is not complete%s%s", path, *answer->reason ? ": " : "",
                      answer->reason);
  }
}

static void put_escaped(FILE *file, const char *text) {
  for (; *text; text++) {
    if (*text == '<' || *text == '&')
      fprintf(file, "&#%d;", *text);
    else if ((unsigned char)*text >= 0x20)
      fputc(*text, file);
  }
}

/* The title of an SVG is what a browser shows and a screen reader says. gnuplot can only write its own name there. */
static bool put_picture(FILE *file, const char *title, const struct child_answer *answer) {
  static const char theirs[] = "<title>Gnuplot</title>";
  const char *text = answer->text, *at = memmem(text, answer->length, theirs, sizeof theirs - 1);
  size_t before = at ? (size_t)(at - text) : 0, rest = at ? before + sizeof theirs - 1 : 0;
  if (at) {
    fwrite(text, 1, before, file);
    fputs("<title>", file);
    put_escaped(file, title);
    fputs("</title>", file);
  }
  fwrite(text + rest, 1, answer->length - rest, file);
  return !ferror(file);
}

static int draw(FILE *file, const struct picture *picture, const char *script, size_t length) {
  char *arguments[] = {"gnuplot", "--default-settings", "-", NULL};
  const char *path = picture->path;
  struct child_answer answer;
  enum child_end end = child_run(arguments, script, length, MOST_SECONDS, MOST_BYTES, &answer);
  int status = TOOL_OK;
  if (end != CHILD_SUCCEEDED || !is_whole(&answer, format_of(path)))
    status = say_why(end, &answer, path);
  else if (!put_picture(file, picture->title, &answer))
    status = outfile_failed("--plot", path);
  free(answer.text);
  return status;
}

int picture_draw(FILE *file, const struct picture *picture) {
  char *script = NULL;
  size_t length = 0;
  FILE *stream = open_memstream(&script, &length);
  if (!stream) return complain("--plot %s: out of memory", picture->path);
  put_terminal(stream, picture);
  picture->put(stream, picture->contents);
  int failed = ferror(stream);
  if (fclose(stream) != 0 || failed || !script) {
    free(script);
    return complain("--plot %s: out of memory", picture->path);
  }
  int status = draw(file, picture, script, length);
  free(script);
  return status;
}
