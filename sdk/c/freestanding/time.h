/* An error that names the alternative. If a library includes this header without using it, empty this file in the SDK of your project. */
#error "a policy has no C library, so no <time.h>: tg_now is the gateway's clock, in ms since 1970"
