#include "tidegate.h"

/* Decodes hexadecimal text; 0 if it is not. */
static size_t from_hex(tg_str text, uint8_t *bytes, size_t room) {
    if (text.len % 2 != 0 || text.len / 2 > room) return 0;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return 0;
        uint8_t digit = c <= '9' ? c - '0' : c - 'a' + 10;
        bytes[i / 2] = i % 2 == 0 ? (uint8_t)(digit << 4) : (uint8_t)(bytes[i / 2] | digit);
    }
    return text.len / 2;
}
