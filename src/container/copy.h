/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of folders, as containers need them. */
#ifndef WALNUT_CONTAINER_COPY_H
#define WALNUT_CONTAINER_COPY_H

#include "base/err.h"

/**
 * container_copy_tree - what is in folder @from into folder @to: contents, modes, owners, times, links, attributes
 * @what: begins the sentence of an error
 *
 * No link is followed; nothing is written over.
 */
int container_copy_tree(int from, int to, const char *what, struct err *err) MUST_CHECK;
/* container_copy_look - owner, mode, times and attributes of the folder @from to @to itself. */
int container_copy_look(int from, int to, const char *what, struct err *err) MUST_CHECK;

#endif
