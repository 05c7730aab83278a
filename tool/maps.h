/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arrays of a network's maps: [images, anchors*classes, height, width] or channels last. The tool evaluates rows. So
 * what is read becomes rows in the library's order (image, y, x, anchor), and what is written becomes a map again.
 */
#ifndef TARE_TOOL_MAPS_H
#define TARE_TOOL_MAPS_H

#include <stddef.h>
#include <stdint.h>

#include "tool/base/npy.h"
#include "tool/base/parse.h"

enum axes { AXES_ROWS, AXES_NCHW, AXES_NHWC };
extern const struct choice axes_choices[];
const char *axes_name(int32_t layout);

/** The axes of maps; all 0 but the layout for rows. */
struct maps {
  int32_t layout;
  int64_t images, height, width, anchors, classes;
};

/** Reads an array with a number an element. Afterwards it has two axes, rows and classes. `maps->layout` and
 *  `maps->classes` are given; the first array fills the others, and the next must agree. */
int maps_read_elements(const char *role, const char *path, unsigned types, struct maps *maps, struct npy *array);

/** Reads an array with a number a row. Afterwards it has one axis. */
int maps_read_rows(const char *role, const char *path, unsigned types, const struct maps *maps, struct npy *array);

/** Turns rows of `size` bytes an element into the map that they came from, in place. TOOL_OK, or TOOL_FAILED if there
 *  is no memory. */
int maps_from_rows(const struct maps *maps, void *data, size_t size);

/** The shapes of what is written: of elements, and of one number a row. They return the number of axes. */
int maps_shape_of_elements(const struct maps *maps, int64_t rows, int64_t classes, int64_t *shape);
int maps_shape_of_rows(const struct maps *maps, int64_t rows, int64_t *shape);

#endif
