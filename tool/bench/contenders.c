/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of losses to show.
 */
#define _GNU_SOURCE
#include "contenders.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool/base/problem.h"
#include "tool/parameters.h"

struct list {
  struct contender *of;
  int32_t count;
};

static struct contender *append(struct list *list, int32_t kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static struct contender *append(struct list *list, int32_t kind, const char *format, ...) {
  static struct contender overflow;
  struct contender *contender = list->count < MAX_CONTENDERS ? &list->of[list->count++] : &overflow;
  *contender = (struct contender){0};
  tare_loss_spec_init(&contender->loss, (tare_loss_kind)kind);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(contender->label, sizeof contender->label, format, arguments);
  va_end(arguments);
  return contender;
}

static void append_focal(struct list *list, const struct contender_filter *filter, bool class_balanced) {
  static const double usual[] = {2, 1.5, 3.7}; /* no power, a square root, a general power */
  int32_t count = class_balanced || filter->gamma >= 0 ? 1 : 3;
  for (int32_t index = 0; index < count; index++) {
    double gamma = filter->gamma >= 0 ? filter->gamma : usual[index];
    struct contender *contender =
        append(list, TARE_LOSS_SIGMOID_FOCAL, class_balanced ? "cb sigmoid-focal, gamma %g" : "sigmoid-focal, gamma %g",
               gamma);
    contender->loss.focal.gamma = gamma;
    contender->class_balanced = class_balanced;
  }
}

static void append_ghm(struct list *list, const struct contender_filter *filter, int32_t kind) {
  static const int32_t usual[] = {10, 30};
  int32_t count = kind == TARE_LOSS_GHM_C && filter->bins == 0 ? 2 : 1;
  for (int32_t index = 0; index < count; index++) {
    int32_t bins = filter->bins ? filter->bins : usual[index];
    append(list, kind, "%s, %d bins", tare_loss_name(kind), bins)->loss.ghm.bins = bins;
  }
}

double *gamma_of(tare_loss_spec *loss) {
  int32_t count = loss_described(loss->kind).parameters;
  for (int32_t index = 0; index < count; index++) {
    tare_parameter_description parameter = {.struct_size = sizeof parameter};
    tare_loss_parameter(loss->kind, index, &parameter);
    if (strcmp(parameter.name, "gamma") == 0) return (double *)(void *)((char *)loss + parameter.offset);
  }
  return NULL;
}

static void append_other(struct list *list, const struct contender_filter *filter, int32_t kind) {
  struct contender *contender = append(list, kind, "%s", tare_loss_name(kind));
  double *gamma = gamma_of(&contender->loss);
  if (!gamma) return;
  if (filter->gamma >= 0) *gamma = filter->gamma;
  snprintf(contender->label, sizeof contender->label, "%s, gamma %g", tare_loss_name(kind), *gamma);
}

static void append_kind(struct list *list, const struct contender_filter *filter, int32_t kind, bool class_balanced) {
  if (kind == TARE_LOSS_SIGMOID_FOCAL)
    append_focal(list, filter, class_balanced);
  else if (loss_described(kind).has_state)
    append_ghm(list, filter, kind);
  else
    append_other(list, filter, kind);
}

/* GHM is measured against focal, in the same run. */
static bool lacks_focal(const struct contender_filter *filter) {
  bool harmonised = false;
  for (int32_t index = 0; index < filter->kind_count; index++) {
    if (filter->kinds[index] == TARE_LOSS_SIGMOID_FOCAL && !filter->class_balanced[index]) return false;
    harmonised = harmonised || filter->kinds[index] == TARE_LOSS_GHM_C;
  }
  return harmonised;
}

/* The standard list is every loss of the library in its own order, so that a new one appears by itself. */
int32_t contenders_list(const struct contender_filter *filter, struct contender *contenders) {
  struct list list = {contenders, 0};
  if (lacks_focal(filter)) append(&list, TARE_LOSS_SIGMOID_FOCAL, "sigmoid-focal, gamma %g", 2.0)->loss.focal.gamma = 2;
  for (int32_t index = 0; index < filter->kind_count; index++) {
    append_kind(&list, filter, filter->kinds[index], filter->class_balanced[index]);
  }
  for (int32_t index = 0; filter->kind_count == 0 && index < tare_loss_count(); index++) {
    int32_t kind = tare_loss_kind_at(index);
    append_kind(&list, filter, kind, false);
    if (kind == TARE_LOSS_SIGMOID_FOCAL) append_kind(&list, filter, kind, true);
  }
  return list.count;
}

int contenders_weigh(struct device *device, const tare_batch *batch, float **class_weights) {
  uint64_t classes = (uint64_t)batch->classes, bytes = classes * sizeof(int64_t);
  int64_t *counts = malloc((size_t)bytes);
  *class_weights = malloc((size_t)classes * sizeof(float));
  void *counted = NULL;
  int status = counts && *class_weights ? TOOL_OK : complain("out of memory");
  if (status == TOOL_OK) status = device_alloc(device, bytes, &counted);
  if (status == TOOL_OK) {
    status = device_check(device, tare_label_counts(device->context, batch, NULL, counted, NULL));
  }
  if (status == TOOL_OK) status = device_wait(device);
  if (status == TOOL_OK) {
    device_get(device, counts, counted, bytes);
    int64_t positives = 0;
    for (uint64_t class = 0; class < classes; class ++) positives += counts[class];
    if (positives == 0) counts[0] = 1; /* a batch without objects: any weights will do */
    if (tare_class_balanced_weights(batch->classes, counts, 0.999, NULL, *class_weights) != TARE_STATUS_OK) {
      status = complain("%s", tare_error_text(NULL));
    }
  }
  device_free(device, counted);
  free(counts);
  return status;
}
