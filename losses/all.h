/* SPDX-License-Identifier: Apache-2.0 */
/* The formulas of all losses that go over elements or rows, for both backends. A template: see formulas.h. */
#include "losses/formulas.h"
#include "losses/scored.h"

#define TARE_FORMULAS
#include "losses/losses.def"
#undef TARE_FORMULAS
