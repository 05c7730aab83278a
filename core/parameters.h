/* SPDX-License-Identifier: Apache-2.0 */
/* The parameters of the losses, read from the table in parameters.def. */
#ifndef TARE_CORE_PARAMETERS_H
#define TARE_CORE_PARAMETERS_H

#include "losses.h"

/** Writes the default of each parameter of loss->kind; an unknown kind has none. */
void tare_parameters_set_defaults(tare_loss_spec *loss);

/** Checks each parameter of the problem's loss against its range, and copies it to the field of `problem` that the
 *  table names. */
tare_status tare_parameters_read(tare_problem *problem, tare_error *error);

/** Refuses a loss whose reserved fields are not 0: a later version may give them a meaning. */
tare_status tare_check_reserved(const tare_loss_spec *loss, const tare_listed_loss *listed, tare_error *error);

/** Whether a parameter of any loss with this member of tare_loss_spec's union begins at this offset. */
int tare_is_parameter_at(const char *member, uint64_t offset);

#endif
