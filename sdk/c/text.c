/* Comparison, slicing and concatenation of text. */
#include <stdlib.h>
#include <string.h>

#include "tidegate.h"

tg_str tg(const char *text) {
    return (tg_str){(uint8_t *)text, strlen(text)};
}

bool tg_equal(tg_str a, tg_str b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool tg_starts_with(tg_str text, tg_str beginning) {
    return text.len >= beginning.len && tg_equal((tg_str){text.ptr, beginning.len}, beginning);
}

tg_str tg_from(tg_str text, size_t start) {
    if (start >= text.len) return (tg_str){NULL, 0};
    return (tg_str){text.ptr + start, text.len - start};
}

static bool is_space(uint8_t byte) {
    return byte == ' ' || (byte >= '\t' && byte <= '\r' && byte != '\v');
}

tg_str tg_trim(tg_str text) {
    while (text.len > 0 && is_space(text.ptr[0])) text.ptr++, text.len--;
    while (text.len > 0 && is_space(text.ptr[text.len - 1])) text.len--;
    return text;
}

tg_str tg_decimal(uint64_t number) {
    uint8_t digits[20];
    size_t start = sizeof digits;
    do {
        digits[--start] = (uint8_t)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    tg_str written = {digits + start, sizeof digits - start};
    return tg_join_all(&written, 1);
}

tg_str tg_join_all(const tg_str *parts, size_t count) {
    size_t len = 0;
    for (size_t i = 0; i < count; i++) len += parts[i].len;
    if (len == 0) return (tg_str){NULL, 0};
    tg_str joined = {malloc(len), len};
    if (joined.ptr == NULL) abort();
    uint8_t *end = joined.ptr;
    for (size_t i = 0; i < count; i++) {
        if (parts[i].len > 0) memcpy(end, parts[i].ptr, parts[i].len);
        end += parts[i].len;
    }
    return joined;
}

/* The number of bytes of a character that begins with `first`; 0 if no character does. */
static size_t length_of(uint8_t first) {
    if (first < 0x80) return 1;
    if (first >= 0xc2 && first <= 0xdf) return 2;
    if (first >= 0xe0 && first <= 0xef) return 3;
    if (first >= 0xf0 && first <= 0xf4) return 4;
    return 0;
}

bool tg_is_utf8(tg_str text) {
    size_t i = 0;
    while (i < text.len) {
        uint8_t first = text.ptr[i];
        size_t length = length_of(first);
        if (length == 0 || length > text.len - i) return false;
        for (size_t k = 1; k < length; k++) {
            if ((text.ptr[i + k] & 0xc0) != 0x80) return false;
        }
        /* Overlong encodings, surrogates, and values beyond the last character. */
        uint8_t second = length > 1 ? text.ptr[i + 1] : 0;
        if (first == 0xe0 && second < 0xa0) return false;
        if (first == 0xed && second > 0x9f) return false;
        if (first == 0xf0 && second < 0x90) return false;
        if (first == 0xf4 && second > 0x8f) return false;
        i += length;
    }
    return true;
}
