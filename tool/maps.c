/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maps and rows.
 */
#define _GNU_SOURCE
#include "maps.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "tool/base/problem.h"

const struct choice axes_choices[] = {{"rows", AXES_ROWS}, {"nchw", AXES_NCHW}, {"nhwc", AXES_NHWC}, {NULL, 0}};

const char *axes_name(int32_t layout) { return axes_choices[layout].name; }

static int discard(struct npy *array) {
  free(array->data);
  array->data = NULL;
  return TOOL_FAILED;
}

/* An anchor's classes are neighbours in rows; in NCHW they are height*width elements apart. Channels last are rows. */
static int transpose(const struct maps *maps, void *data, size_t size, bool to_rows) {
  const bool empty = !maps->images || !maps->height || !maps->width || !maps->anchors; /* others may be huge then */
  if (maps->layout != AXES_NCHW || empty) return TOOL_OK;
  const size_t plane = (size_t)(maps->height * maps->width), channels = (size_t)(maps->anchors * maps->classes);
  const size_t image = plane * channels * size;
  char *copy = malloc(image);
  if (!copy) return complain("no memory to reorder the maps of one image");
  for (int64_t index = 0; index < maps->images; index++) {
    char *at = (char *)data + (size_t)index * image;
    memcpy(copy, at, image);
    for (size_t channel = 0; channel < channels; channel++) {
      for (size_t place = 0; place < plane; place++) {
        const size_t map = (channel * plane + place) * size, row = (place * channels + channel) * size;
        memcpy(at + (to_rows ? row : map), copy + (to_rows ? map : row), size);
      }
    }
  }
  free(copy);
  return TOOL_OK;
}

static int check_axes(const char *role, const char *path, const struct maps *maps, const struct npy *array) {
  char shape[256];
  npy_print_shape(array, shape, sizeof shape);
  if (maps->layout != AXES_ROWS) {
    if (array->dimensions == 4) return TOOL_OK;
    return complain("%s %s: found shape %s, expected four axes with --layout %s", role, path, shape,
                    axes_name(maps->layout));
  }
  if (array->dimensions == 2) return TOOL_OK;
  return complain("%s %s: found shape %s, expected two axes (rows, classes); %s", role, path, shape,
                  array->dimensions == 4
                      ? "maps (images, anchors*classes, height, width) are --layout nchw --classes C, and with "
                        "their channels last nhwc"
                      : "if the classes are the last axis, reshape with x.reshape(-1, classes)");
}

/* What the shape of an array says of the maps. */
static int take_axes(const char *role, const char *path, struct maps *maps, const struct npy *array) {
  const bool last = maps->layout == AXES_NHWC;
  const int64_t channels = array->shape[last ? 3 : 1];
  const struct maps found = {
      maps->layout, array->shape[0], array->shape[last ? 1 : 2], array->shape[last ? 2 : 3], channels / maps->classes,
      maps->classes};
  if (channels % maps->classes != 0) {
    return complain("%s %s: found %" PRId64 " channels, expected a multiple of --classes %" PRId64, role, path,
                    channels, maps->classes);
  }
  *maps = found;
  return TOOL_OK;
}

static bool are_equal(const struct maps *a, const struct maps *b) {
  return a->images == b->images && a->height == b->height && a->width == b->width && a->anchors == b->anchors;
}

int maps_read_elements(const char *role, const char *path, unsigned types, struct maps *maps, struct npy *array) {
  int status = npy_read(role, path, types, NPY_ANY_DIMENSIONS, array);
  if (status != TOOL_OK) return status;
  status = check_axes(role, path, maps, array);
  if (status == TOOL_OK && maps->layout != AXES_ROWS) {
    const struct maps before = *maps;
    status = take_axes(role, path, maps, array);
    if (status == TOOL_OK && before.anchors && !are_equal(&before, maps))
      status = complain("%s %s: its shape is not that of the logits", role, path);
    if (status == TOOL_OK) status = transpose(maps, array->data, npy_size(array->type), true);
    array->dimensions = 2;
    array->shape[0] = array->count / maps->classes;
    array->shape[1] = maps->classes;
  }
  return status == TOOL_OK ? TOOL_OK : discard(array);
}

int maps_read_rows(const char *role, const char *path, unsigned types, const struct maps *maps, struct npy *array) {
  char shape[256];
  int64_t axes[4];
  if (maps->layout == AXES_ROWS) return npy_read(role, path, types, 1, array);
  int status = npy_read(role, path, types, NPY_ANY_DIMENSIONS, array);
  if (status != TOOL_OK) return status;
  maps_shape_of_rows(maps, 0, axes);
  const bool same = array->dimensions == 4 && memcmp(array->shape, axes, sizeof axes) == 0;
  if (!same && array->dimensions != 1) {
    npy_print_shape(array, shape, sizeof shape);
    complain("%s %s: found shape %s, expected (images, height, width, anchors), here (%" PRId64 ", %" PRId64
             ", %" PRId64 ", %" PRId64 "), or one axis in this order",
             role, path, shape, axes[0], axes[1], axes[2], axes[3]);
    return discard(array);
  }
  array->dimensions = 1;
  array->shape[0] = array->count;
  return TOOL_OK;
}

int maps_from_rows(const struct maps *maps, void *data, size_t size) { return transpose(maps, data, size, false); }

int maps_shape_of_elements(const struct maps *maps, int64_t rows, int64_t classes, int64_t *shape) {
  const int64_t channels = maps->anchors * maps->classes;
  const int64_t of[][4] = {[AXES_ROWS] = {rows, classes},
                           [AXES_NCHW] = {maps->images, channels, maps->height, maps->width},
                           [AXES_NHWC] = {maps->images, maps->height, maps->width, channels}};
  memcpy(shape, of[maps->layout], sizeof of[0]);
  return maps->layout == AXES_ROWS ? 2 : 4;
}

int maps_shape_of_rows(const struct maps *maps, int64_t rows, int64_t *shape) {
  const int64_t of[] = {maps->images, maps->height, maps->width, maps->anchors};
  shape[0] = rows;
  if (maps->layout != AXES_ROWS) memcpy(shape, of, sizeof of);
  return maps->layout == AXES_ROWS ? 1 : 4;
}
