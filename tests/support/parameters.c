/* SPDX-License-Identifier: Apache-2.0 */
#include "parameters.h"

#include <criterion/criterion.h>
#include <string.h>

tare_loss_description describe_loss(int32_t kind) {
  tare_loss_description description = {.struct_size = sizeof description};
  cr_assert_eq(tare_loss_describe(kind, &description), TARE_STATUS_OK, "loss %d: %s", (int)kind, tare_error_text(NULL));
  return description;
}

tare_parameter_description describe_parameter(int32_t kind, int32_t index) {
  tare_parameter_description description = {.struct_size = sizeof description};
  cr_assert_eq(tare_loss_parameter(kind, index, &description), TARE_STATUS_OK, "%s", tare_error_text(NULL));
  return description;
}

static bool is_pointer(const tare_parameter_description *parameter) {
  return parameter->type == TARE_PARAMETER_TYPE_PER_CLASS || parameter->type == TARE_PARAMETER_TYPE_STATE;
}

double parameter_value(const tare_loss_spec *loss, const tare_parameter_description *parameter) {
  const char *at = (const char *)loss + parameter->offset;
  double number;
  int32_t integer;
  const void *pointer;
  memcpy(&integer, at, sizeof integer);
  if (is_pointer(parameter)) {
    memcpy(&pointer, at, sizeof pointer);
    return pointer != NULL;
  }
  if (parameter->type != TARE_PARAMETER_TYPE_NUMBER) return integer;
  memcpy(&number, at, sizeof number);
  return number;
}

void parameter_set(tare_loss_spec *loss, const tare_parameter_description *parameter, double value) {
  char *at = (char *)loss + parameter->offset;
  cr_assert(!is_pointer(parameter), "%s is a pointer", parameter->name);
  if (parameter->type == TARE_PARAMETER_TYPE_NUMBER) {
    memcpy(at, &value, sizeof value); /* of any value: NaN is no integer */
    return;
  }
  const int32_t integer = (int32_t)value;
  memcpy(at, &integer, sizeof integer);
}

void parameter_set_pointer(tare_loss_spec *loss, const tare_parameter_description *parameter, const void *pointer) {
  cr_assert(is_pointer(parameter), "%s is no pointer", parameter->name);
  memcpy((char *)loss + parameter->offset, &pointer, sizeof pointer);
}

bool find_parameter(int32_t kind, const char *name, tare_parameter_description *found) {
  const int32_t count = describe_loss(kind).parameters;
  for (int32_t i = 0; i < count; i++) {
    *found = describe_parameter(kind, i);
    if (strcmp(found->name, name) == 0) return true;
  }
  return false;
}

double named_parameter(const tare_loss_spec *loss, const char *name, double otherwise) {
  tare_parameter_description parameter;
  return find_parameter(loss->kind, name, &parameter) ? parameter_value(loss, &parameter) : otherwise;
}

const struct oracle_loss *oracle_loss_of(int32_t kind) {
  switch (kind) {
#define TARE_LOSS(KIND, ...) \
  case TARE_LOSS_##KIND:     \
    return &ORACLE_##KIND;
#include "losses/losses.def"
#undef TARE_LOSS
  }
  cr_assert_fail("the library has no loss %d", (int)kind);
  return NULL;
}
