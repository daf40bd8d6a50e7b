/* The library, without its text format, which needs more of a C library. */
#include "lib/src/argon2.c"
#include "lib/src/blake2/blake2b.c"
#include "lib/src/core.c"
#include "lib/src/ref.c"
