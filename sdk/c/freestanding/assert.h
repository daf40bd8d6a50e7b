/* The standard header. A failed assertion is logged with its place, and ends the decision with a trap. */
#ifndef TIDEGATE_ASSERT_H
#define TIDEGATE_ASSERT_H

#define TIDEGATE_TEXT(token) #token
#define TIDEGATE_TEXT_OF(macro) TIDEGATE_TEXT(macro)

_Noreturn void tg_assertion_failed(const char *text);

#endif

/* Each inclusion follows NDEBUG. */
#undef assert
#ifdef NDEBUG
#define assert(condition) ((void)0)
#else
#define assert(condition) \
    ((condition) ? (void)0 : tg_assertion_failed(__FILE__ ":" TIDEGATE_TEXT_OF(__LINE__) ": assertion failed: " #condition))
#endif
