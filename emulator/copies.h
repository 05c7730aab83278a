/* SPDX-License-Identifier: Apache-2.0 */
/* Twin of copies to shared memory that run ahead (cp.async): what a thread copies is there when it has waited for it,
 * and not before; until then the place holds something else. Under a seed some copies are early, as on a GPU. */
#ifndef TARE_EMULATOR_COPIES_H
#define TARE_EMULATOR_COPIES_H

#include "thread.h"

namespace emulator {

constexpr size_t copy_size = 16;

void start_copy(void *to, const void *from, place at = place::here());
void close_copies();                 /* ends a group of those begun since the last */
void wait_for_copies(unsigned open); /* all groups have arrived, but for the last `open` */

/** How many groups a kernel lets run ahead: `most`, or with TARE_EMULATOR_COPIES_AHEAD=0 none, as before sm_80. */
int copies_ahead(int most);

}  // namespace emulator

#endif
