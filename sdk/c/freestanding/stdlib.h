/* As much of the standard header as a policy without a libc needs. */
#ifndef TIDEGATE_STDLIB_H
#define TIDEGATE_STDLIB_H

#include <stddef.h>

/* Memory of the decision; `free` does nothing, all of it goes when the decision is made. */
void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void *realloc(void *old, size_t size);
void free(void *memory);
/* Ends the decision: the client stays out. */
_Noreturn void abort(void);

#endif
