/* An error that names the alternative. If a library includes this header without using it, empty this file in the SDK of your project. */
#error "a policy has no operating system, so no <unistd.h>, no files and no network: read Redis with tg_get, verify tokens with tg_verify"
