/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a report comes from.
 */
#define _GNU_SOURCE
#include "provenance.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "report.h"

json_t *provenance_command(int argc, char **argv) {
  json_t *words = json_array();
  json_append(words, json_string("tare"));
  json_append(words, json_text(strchr(argv[0], ' ') ? strchr(argv[0], ' ') + 1 : argv[0]));
  for (int index = 1; index < argc; index++) json_append(words, json_text(argv[index]));
  return words;
}

/* A parameter that is a pointer comes from a file of the command line. */
static json_t *value_of(const tare_loss_spec *loss, const tare_parameter_description *parameter) {
  const char *at = (const char *)loss + parameter->offset;
  double number;
  int32_t whole;
  memcpy(&number, at, sizeof number);
  memcpy(&whole, at, sizeof whole);
  switch (parameter->type) {
    case TARE_PARAMETER_TYPE_NUMBER:
      return json_number(number);
    case TARE_PARAMETER_TYPE_INTEGER:
      return json_integer(whole);
    case TARE_PARAMETER_TYPE_CHOICE:
      return json_string(parameter->choices[whole]);
    default:
      return NULL;
  }
}

json_t *provenance_parameters(const tare_loss_spec *loss) {
  json_t *parameters = json_object();
  tare_loss_description about = {.struct_size = sizeof about};
  tare_loss_describe(loss->kind, &about);
  for (int32_t index = 0; index < about.parameters; index++) {
    tare_parameter_description parameter = {.struct_size = sizeof parameter};
    tare_loss_parameter(loss->kind, index, &parameter);
    json_t *value = value_of(loss, &parameter);
    if (value) json_set(parameters, parameter.name, value);
  }
  return parameters;
}

void provenance_add(json_t *object) {
  char text[64];
  const int32_t version = tare_version();
  snprintf(text, sizeof text, "%d.%d.%d", version / 10000, version / 100 % 100, version % 100);
  json_set(object, "version", json_string(text));
  json_set(object, "build", json_text(tare_build_description()));
  const time_t now = time(NULL);
  struct tm utc;
  if (gmtime_r(&now, &utc) && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc))
    json_set(object, "date", json_string(text));
}

json_t *provenance_noise(struct noise noise) {
  json_t *object = json_object();
  json_set(object, "spread", noise.known ? json_number(noise.spread) : json_null());
  json_set(object, "limit", json_real(NOISE_LIMIT));
  json_set(object, "trusted", json_boolean(noise.trusted));
  return object;
}
