/* A strict parser for JSON (RFC 8259). It checks the whole document before it returns any value. */
#include <stdlib.h>
#include <string.h>

#include "tidegate.h"

/* Bounds the stack. */
#define MAX_DEPTH 64

/* A position in the text. */
typedef struct {
    const uint8_t *at, *end;
} reader;

static bool take(reader *in, uint8_t byte) {
    if (in->at == in->end || *in->at != byte) return false;
    in->at++;
    return true;
}

static void skip_space(reader *in) {
    while (take(in, ' ') || take(in, '\t') || take(in, '\n') || take(in, '\r')) {}
}

static bool read_word(reader *in, const char *word) {
    for (; *word != 0; word++) {
        if (!take(in, (uint8_t)*word)) return false;
    }
    return true;
}

static bool read_digits(reader *in) {
    const uint8_t *start = in->at;
    while (in->at < in->end && *in->at >= '0' && *in->at <= '9') in->at++;
    return in->at > start;
}

static bool read_number(reader *in) {
    take(in, '-');
    if (!take(in, '0') && !read_digits(in)) return false;
    if (take(in, '.') && !read_digits(in)) return false;
    if (take(in, 'e') || take(in, 'E')) {
        if (!take(in, '+')) take(in, '-');
        return read_digits(in);
    }
    return true;
}

/* Reads four hexadecimal digits; -1 if there are fewer. */
static int32_t read_unit(reader *in) {
    int32_t unit = 0;
    for (int i = 0; i < 4; i++, in->at++) {
        if (in->at == in->end) return -1;
        uint8_t digit = *in->at;
        if (digit >= '0' && digit <= '9') unit = unit * 16 + digit - '0';
        else if (digit >= 'a' && digit <= 'f') unit = unit * 16 + digit - 'a' + 10;
        else if (digit >= 'A' && digit <= 'F') unit = unit * 16 + digit - 'A' + 10;
        else return -1;
    }
    return unit;
}

static uint8_t *put_character(uint8_t *out, uint32_t c) {
    if (c < 0x80) {
        *out++ = (uint8_t)c;
    } else if (c < 0x800) {
        *out++ = (uint8_t)(0xc0 | c >> 6);
        *out++ = (uint8_t)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (uint8_t)(0xe0 | c >> 12);
        *out++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        *out++ = (uint8_t)(0x80 | (c & 0x3f));
    } else {
        *out++ = (uint8_t)(0xf0 | c >> 18);
        *out++ = (uint8_t)(0x80 | (c >> 12 & 0x3f));
        *out++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        *out++ = (uint8_t)(0x80 | (c & 0x3f));
    }
    return out;
}

/* Reads the escape after a backslash. Its UTF-8 is at most as long as the escape. A lone surrogate is an error. */
static bool read_escape(reader *in, uint8_t **out) {
    static const char escapes[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
    if (in->at == in->end) return false;
    uint8_t kind = *in->at++;
    if (kind != 'u') {
        for (size_t i = 0; i + 1 < sizeof escapes; i += 2) {
            if (kind == (uint8_t)escapes[i]) {
                *(*out)++ = (uint8_t)escapes[i + 1];
                return true;
            }
        }
        return false;
    }
    int32_t unit = read_unit(in);
    if (unit < 0 || (unit >= 0xdc00 && unit <= 0xdfff)) return false;
    uint32_t character = (uint32_t)unit;
    if (unit >= 0xd800 && unit <= 0xdbff) {
        if (!take(in, '\\') || !take(in, 'u')) return false;
        int32_t low = read_unit(in);
        if (low < 0xdc00 || low > 0xdfff) return false;
        character = 0x10000 + ((character - 0xd800) << 10) + (uint32_t)(low - 0xdc00);
    }
    *out = put_character(*out, character);
    return true;
}

/* Reads a string with its quotes into `out`, which has space for as many bytes as the text. */
static bool read_string(reader *in, uint8_t **out) {
    if (!take(in, '"')) return false;
    while (in->at < in->end) {
        uint8_t byte = *in->at++;
        if (byte == '"') return true;
        if (byte < 0x20) return false;
        if (byte == '\\') {
            if (!read_escape(in, out)) return false;
        } else {
            *(*out)++ = byte;
        }
    }
    return false;
}

static bool skip_string(reader *in) {
    /* An escape is at most four bytes in UTF-8. */
    uint8_t character[4];
    if (!take(in, '"')) return false;
    while (in->at < in->end) {
        uint8_t byte = *in->at++, *out = character;
        if (byte == '"') return true;
        if (byte < 0x20) return false;
        if (byte == '\\' && !read_escape(in, &out)) return false;
    }
    return false;
}

static tg_json_kind read_value(reader *in, int depth);

/* Reads the elements between brackets or braces; `in` is past the opening one. */
static bool read_elements(reader *in, uint8_t closing, int depth) {
    skip_space(in);
    if (take(in, closing)) return true;
    do {
        skip_space(in);
        if (closing == '}') {
            if (!skip_string(in)) return false;
            skip_space(in);
            if (!take(in, ':')) return false;
            skip_space(in);
        }
        if (read_value(in, depth) == TG_JSON_NONE) return false;
        skip_space(in);
    } while (take(in, ','));
    return take(in, closing);
}

static tg_json_kind read_value(reader *in, int depth) {
    if (depth > MAX_DEPTH || in->at == in->end) return TG_JSON_NONE;
    switch (*in->at) {
    case 'n': return read_word(in, "null") ? TG_JSON_NULL : TG_JSON_NONE;
    case 't': return read_word(in, "true") ? TG_JSON_BOOL : TG_JSON_NONE;
    case 'f': return read_word(in, "false") ? TG_JSON_BOOL : TG_JSON_NONE;
    case '"': return skip_string(in) ? TG_JSON_STRING : TG_JSON_NONE;
    case '[': in->at++; return read_elements(in, ']', depth + 1) ? TG_JSON_ARRAY : TG_JSON_NONE;
    case '{': in->at++; return read_elements(in, '}', depth + 1) ? TG_JSON_OBJECT : TG_JSON_NONE;
    default: return read_number(in) ? TG_JSON_NUMBER : TG_JSON_NONE;
    }
}

/* Reads one value and returns its kind and its text. */
static tg_json next(reader *in) {
    skip_space(in);
    const uint8_t *start = in->at;
    tg_json value = {.kind = read_value(in, 0)};
    value.text = (tg_str){(uint8_t *)start, (size_t)(in->at - start)};
    return value;
}

static reader reader_of(tg_str text) {
    return (reader){text.ptr, text.ptr + text.len};
}

tg_json tg_json_parse(tg_str document) {
    if (document.len == 0 || !tg_is_utf8(document)) return (tg_json){0};
    reader in = reader_of(document);
    tg_json value = next(&in);
    skip_space(&in);
    return in.at == in.end ? value : (tg_json){0};
}

bool tg_json_string(tg_json value, tg_str *text) {
    if (value.kind != TG_JSON_STRING) return false;
    uint8_t *start = malloc(value.text.len);
    if (start == NULL) abort();
    uint8_t *end = start;
    reader in = reader_of(value.text);
    if (!read_string(&in, &end)) return false;
    *text = (tg_str){start, (size_t)(end - start)};
    return true;
}

/* The document was checked by `tg_json_parse`, so reading it again cannot fail. */
tg_json tg_json_member(tg_json object, const char *name) {
    tg_json found = {0};
    if (object.kind != TG_JSON_OBJECT) return found;
    reader in = reader_of(object.text);
    take(&in, '{');
    skip_space(&in);
    while (in.at < in.end && *in.at != '}') {
        tg_str key = {0};
        tg_json_string(next(&in), &key);
        skip_space(&in);
        take(&in, ':');
        tg_json value = next(&in);
        if (tg_equal(key, tg(name))) found = value;
        skip_space(&in);
        take(&in, ',');
        skip_space(&in);
    }
    return found;
}

tg_json tg_json_item(tg_json array, size_t index) {
    if (array.kind != TG_JSON_ARRAY) return (tg_json){0};
    reader in = reader_of(array.text);
    take(&in, '[');
    skip_space(&in);
    for (size_t i = 0; in.at < in.end && *in.at != ']'; i++) {
        tg_json value = next(&in);
        if (i == index) return value;
        skip_space(&in);
        take(&in, ',');
        skip_space(&in);
    }
    return (tg_json){0};
}

bool tg_json_integer(tg_json value, int64_t *number) {
    if (value.kind != TG_JSON_NUMBER) return false;
    bool negative = value.text.ptr[0] == '-';
    uint64_t limit = negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX, sum = 0;
    for (size_t i = negative; i < value.text.len; i++) {
        uint8_t digit = (uint8_t)(value.text.ptr[i] - '0');
        if (digit > 9 || sum > (limit - digit) / 10) return false;
        sum = sum * 10 + digit;
    }
    *number = negative && sum > 0 ? -(int64_t)(sum - 1) - 1 : (int64_t)sum;
    return true;
}

bool tg_json_true(tg_json value) {
    return value.kind == TG_JSON_BOOL && value.text.ptr[0] == 't';
}
