/* Access to the parts of a request. */
#include <stdlib.h>
#include <string.h>

#include "tidegate.h"

typedef tidegate_policy_types_header_t header;

static tg_str value_of(const header *header) {
    return (tg_str){header->value.ptr, header->value.len};
}

bool tg_request_header(const tg_request *request, const char *name, tg_str *value) {
    for (size_t i = 0; i < request->headers.len; i++) {
        const header *header = &request->headers.ptr[i];
        if (tg_equal(header->name, tg(name))) {
            *value = value_of(header);
            return true;
        }
    }
    return false;
}

/* Splits `rest` at the first `separator`: returns the text before it, and sets `rest` to the text after it. */
static tg_str split(tg_str *rest, uint8_t separator, bool *found) {
    size_t i = 0;
    while (i < rest->len && rest->ptr[i] != separator) i++;
    tg_str before = {rest->ptr, i};
    *found = i < rest->len;
    *rest = tg_from(*rest, i + 1);
    return before;
}

/* Skips parts that are not `name=value`, as browsers' and servers' parsers do. */
static bool find_cookie(tg_str cookies, tg_str name, tg_str *value) {
    bool more = true;
    while (more) {
        bool has_value;
        tg_str pair = split(&cookies, ';', &more);
        tg_str key = split(&pair, '=', &has_value);
        if (has_value && tg_equal(tg_trim(key), name)) {
            *value = tg_trim(pair);
            return true;
        }
    }
    return false;
}

bool tg_cookie(const tg_request *request, const char *name, tg_str *value) {
    for (size_t i = 0; i < request->headers.len; i++) {
        const header *header = &request->headers.ptr[i];
        if (tg_equal(header->name, tg("cookie")) && find_cookie(value_of(header), tg(name), value)) return true;
    }
    return false;
}

bool tg_bearer(const tg_request *request, tg_str *value) {
    static const char scheme[] = "bearer ";
    tg_str authorization;
    if (!tg_request_header(request, "authorization", &authorization) || authorization.len < sizeof scheme - 1) return false;
    for (size_t i = 0; i < sizeof scheme - 1; i++) {
        uint8_t byte = authorization.ptr[i];
        if (byte >= 'A' && byte <= 'Z') byte = (uint8_t)(byte - 'A' + 'a');
        if (byte != (uint8_t)scheme[i]) return false;
    }
    *value = tg_trim(tg_from(authorization, sizeof scheme - 1));
    return value->len > 0;
}

static int hex(uint8_t digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
    return -1;
}

/* Decodes percent escapes. Invalid escapes are kept, as in browsers. */
static tg_str decode(tg_str text) {
    if (text.len == 0) return text;
    tg_str decoded = {malloc(text.len), 0};
    if (decoded.ptr == NULL) abort();
    for (size_t i = 0; i < text.len; i++) {
        uint8_t byte = text.ptr[i];
        if (byte == '+') byte = ' ';
        if (byte == '%' && text.len - i > 2 && hex(text.ptr[i + 1]) >= 0 && hex(text.ptr[i + 2]) >= 0) {
            byte = (uint8_t)(hex(text.ptr[i + 1]) << 4 | hex(text.ptr[i + 2]));
            i += 2;
        }
        decoded.ptr[decoded.len++] = byte;
    }
    return decoded;
}

bool tg_query(const tg_request *request, const char *name, tg_str *value) {
    bool more, has_value;
    tg_str query = request->path_with_query;
    split(&query, '?', &more);
    while (more) {
        tg_str pair = split(&query, '&', &more);
        tg_str key = split(&pair, '=', &has_value);
        if (tg_equal(decode(key), tg(name))) {
            *value = decode(pair);
            return true;
        }
    }
    return false;
}
