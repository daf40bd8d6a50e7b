/* The subset of the standard header that is available to policies. */
#ifndef TIDEGATE_STDLIB_H
#define TIDEGATE_STDLIB_H

#include <stddef.h>

/* Memory lives as long as the decision; `free` does nothing. */
void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void *realloc(void *old, size_t size);
void free(void *memory);
/* Ends the decision with a trap, so the client is not admitted. */
_Noreturn void abort(void);

#endif
