/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A picture that gnuplot draws: as SVG, PNG or PDF, by the name of its file.
 */
#ifndef TARE_TOOL_PICTURE_H
#define TARE_TOOL_PICTURE_H

#include <stdio.h>

/* One meaning a colour, in every picture; the first two also in those of examples/detector. */
#define COLOUR_BACKGROUND "#d9730d" /* elements of background, and of classes that an object does not have */
#define COLOUR_OBJECTS "#1f6fb4"
#define COLOUR_UNWEIGHTED "#777777" /* cross-entropy; plain copies */
#define COLOUR_WEIGHT "#8a6d1f"
#define COLOUR_FOCAL "#2f7d4f"
#define COLOUR_LOSS "#7b3fa0" /* the loss that the picture is about */

struct picture {
  const char *path;                          /**< what parse_picture took */
  const char *title;                         /**< of an SVG, in one line */
  int width, height;                         /**< pixels of an SVG; a PNG has twice as many */
  void (*put)(FILE *script, void *contents); /**< writes gnuplot's script, after "set terminal" */
  void *contents;
};

/** Draws to `file`. TOOL_OK, or TOOL_FAILED after complaining. */
int picture_draw(FILE *file, const struct picture *picture);

/** A gnuplot string: in single quotes, without characters that could end the line. */
void put_quoted(FILE *script, const char *text);
void put_inside_quotes(FILE *script, const char *text); /**< the same without the quotes */

#endif
