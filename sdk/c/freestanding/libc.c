/* A minimal C library: a bump allocator, and the functions that compilers generate calls to. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tidegate.h"

#define PAGE ((size_t)65536)
#define ALIGNMENT ((size_t)16)

/* The end of the static data, defined by the linker. */
extern uint8_t __heap_base;

static uintptr_t next;

_Noreturn void abort(void) {
    __builtin_trap();
}

_Noreturn void tg_assertion_failed(const char *text) {
    tg_log(TG_ERROR, tg(text));
    abort();
}

void *malloc(size_t size) {
    if (next == 0) next = (uintptr_t)&__heap_base;
    uintptr_t start = (next + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
    size_t available = __builtin_wasm_memory_size(0) * PAGE - start;
    if (size > available) {
        size_t pages = (size - available - 1) / PAGE + 1;
        if (__builtin_wasm_memory_grow(0, pages) == SIZE_MAX) return NULL;
    }
    next = start + size;
    return (void *)start;
}

void *calloc(size_t count, size_t size) {
    if (size > 0 && count > SIZE_MAX / size) return NULL;
    void *memory = malloc(count * size);
    return memory == NULL ? NULL : memset(memory, 0, count * size);
}

/* The old size is unknown. Copying too many bytes is harmless: the copied range ends before the new memory, and the caller overwrites the
 * excess. */
void *realloc(void *old, size_t size) {
    uint8_t *memory = malloc(size);
    if (old == NULL || memory == NULL) return memory;
    size_t known = (size_t)(memory - (uint8_t *)old);
    return memcpy(memory, old, size < known ? size : known);
}

void free(void *memory) {
    (void)memory;
}

/* Called after the gateway has read the answer. Frees all memory, in case the instance decides again. */
__attribute__((export_name("cabi_post_tidegate:policy/authorizer@0.1.0#authorize")))
void __wasm_export_exports_tidegate_policy_authorizer_authorize_post_return(uint8_t *answer) {
    (void)answer;
    next = 0;
}

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    uint8_t *a = to;
    const uint8_t *b = from;
    while (size-- > 0) *a++ = *b++;
    return to;
}

void *memmove(void *to, const void *from, size_t size) {
    uint8_t *a = to;
    const uint8_t *b = from;
    if (a <= b) return memcpy(to, from, size);
    while (size-- > 0) a[size] = b[size];
    return to;
}

void *memset(void *to, int byte, size_t size) {
    uint8_t *a = to;
    while (size-- > 0) *a++ = (uint8_t)byte;
    return to;
}

int memcmp(const void *a, const void *b, size_t size) {
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < size; i++) {
        if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
    }
    return 0;
}

size_t strlen(const char *text) {
    size_t length = 0;
    while (text[length] != 0) length++;
    return length;
}

int strcmp(const char *a, const char *b) {
    while (*a != 0 && *a == *b) a++, b++;
    return (uint8_t)*a - (uint8_t)*b;
}
