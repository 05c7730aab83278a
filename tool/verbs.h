/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tool's verbs. Each gets its own arguments, argv[0] being "tare VERB", and returns the exit status.
 */
#ifndef TARE_TOOL_VERBS_H
#define TARE_TOOL_VERBS_H

int verb_info(int argc, char **argv);
int verb_eval(int argc, char **argv);
int verb_mask(int argc, char **argv);
int verb_weights(int argc, char **argv);
int verb_bench(int argc, char **argv);
int verb_demo(int argc, char **argv);

#endif
