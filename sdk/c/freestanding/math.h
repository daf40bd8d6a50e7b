/* An error that names the alternative. If a library includes this header without using it, empty this file in the SDK of your project. */
#error "a policy has no C library, so no <math.h>: parse JSON with tg_json_parse, or use integers"
