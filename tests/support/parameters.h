/* SPDX-License-Identifier: Apache-2.0 */
/* The parameters of a problem's loss, by the names that the library's description gives them. So the tests set, draw
 * and print those of a loss that they have never heard of. */
#ifndef TARE_TESTS_PARAMETERS_H
#define TARE_TESTS_PARAMETERS_H

#include <stdbool.h>

#include "../oracle/oracle.h"
#include "tare.h"

tare_loss_description describe_loss(int32_t kind);
tare_parameter_description describe_parameter(int32_t kind, int32_t index);

/** The number or integer at a parameter; of a pointer, whether it is set. */
double parameter_value(const tare_loss_spec *loss, const tare_parameter_description *parameter);
void parameter_set(tare_loss_spec *loss, const tare_parameter_description *parameter, double value);
void parameter_set_pointer(tare_loss_spec *loss, const tare_parameter_description *parameter, const void *pointer);

/** The parameter of this name; false if the loss has none. */
bool find_parameter(int32_t kind, const char *name, tare_parameter_description *found);

/** Its value, or `otherwise` if the loss has no such parameter. */
double named_parameter(const tare_loss_spec *loss, const char *name, double otherwise);

/** The oracle's. A loss that its header lacks does not compile, and one without a formula does not link. */
const struct oracle_loss *oracle_loss_of(int32_t kind);

#endif
