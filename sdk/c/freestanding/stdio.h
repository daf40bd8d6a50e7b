/* An error that names the alternative. If a library includes this header without using it, empty this file in the SDK of your project. */
#include <stddef.h>

#error "a policy has no C library, so no <stdio.h>: log with tg_log, join text with tg_join, parse JSON with tg_json_parse"
