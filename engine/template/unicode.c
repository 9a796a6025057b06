/* UTF-8 and character properties, the latter from utf8proc. Owns nothing; any thread. */
#include "engine/template/unicode.h"

#include <utf8proc.h>

size_t jinja_utf8_decode(const char *bytes, size_t n, uint32_t *point)
{
    const unsigned char *b = (const unsigned char *)bytes;
    size_t length = b[0] < 0x80 ? 1 : b[0] >= 0xF0 ? 4 : b[0] >= 0xE0 ? 3 : b[0] >= 0xC0 ? 2 : 1;
    if (length > n || (length == 1 && b[0] >= 0x80)) {
        *point = b[0];
        return 1;
    }
    static const unsigned char first_bits[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    *point = b[0] & first_bits[length];
    for (size_t i = 1; i < length; i++)
        *point = *point << 6 | (b[i] & 0x3F);
    return length;
}

size_t jinja_utf8_encode(uint32_t point, char out[static 4])
{
    if (point > 0x10FFFF || (point >= 0xD800 && point < 0xE000))
        point = 0xFFFD;
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    size_t length = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    static const unsigned char marks[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = length - 1; i > 0; i--, point >>= 6)
        out[i] = (char)(0x80 | (point & 0x3F));
    out[0] = (char)(marks[length] | point);
    return length;
}

size_t jinja_utf8_points(const char *bytes, size_t n)
{
    size_t points = 0;
    for (size_t i = 0; i < n; i++)
        points += ((unsigned char)bytes[i] & 0xC0) != 0x80;
    return points;
}

size_t jinja_utf8_offset(const char *bytes, size_t n, size_t point)
{
    size_t i = 0;
    while (i < n && (((unsigned char)bytes[i] & 0xC0) == 0x80 || point-- > 0))
        i++;
    return i;
}

size_t jinja_utf8_back(const char *bytes, size_t end)
{
    do
        end--;
    while (end > 0 && ((unsigned char)bytes[end] & 0xC0) == 0x80);
    return end;
}

size_t jinja_utf8_check(const char *bytes, size_t n)
{
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t point;
        utf8proc_ssize_t length =
            utf8proc_iterate((const utf8proc_uint8_t *)bytes + i, n - i > 4 ? 4 : (utf8proc_ssize_t)(n - i), &point);
        if (length <= 0)
            return i;
        i += (size_t)length;
    }
    return n;
}

bool jinja_is_space(uint32_t c)
{
    return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool jinja_is_line_end(uint32_t c)
{
    return (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

static utf8proc_category_t category(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c);
}

bool jinja_is_printable(uint32_t c)
{
    switch (category(c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    case UTF8PROC_CATEGORY_ZS:
        return c == ' ';
    default:
        return true;
    }
}

bool jinja_is_alphabetic(uint32_t c)
{
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT ||
           k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_LO;
}

bool jinja_is_decimal(uint32_t c)
{
    return category(c) == UTF8PROC_CATEGORY_ND;
}

bool jinja_is_numeric(uint32_t c)
{
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

bool jinja_is_upper(uint32_t c)
{
    return category(c) == UTF8PROC_CATEGORY_LU;
}

bool jinja_is_lower(uint32_t c)
{
    return category(c) == UTF8PROC_CATEGORY_LL || c == 0xAA || c == 0xBA;
}

uint32_t jinja_to_upper(uint32_t c)
{
    if (c < 0x80)
        return c >= 'a' && c <= 'z' ? c - 32 : c;
    return (uint32_t)utf8proc_toupper((utf8proc_int32_t)c);
}

uint32_t jinja_to_lower(uint32_t c)
{
    if (c < 0x80)
        return c >= 'A' && c <= 'Z' ? c + 32 : c;
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
}

size_t jinja_rstrip(const char *bytes, size_t n)
{
    while (n > 0) {
        uint32_t point;
        size_t start = jinja_utf8_back(bytes, n);
        jinja_utf8_decode(bytes + start, n - start, &point);
        if (!jinja_is_space(point))
            break;
        n = start;
    }
    return n;
}

size_t jinja_lstrip(const char *bytes, size_t n)
{
    size_t i = 0;
    while (i < n) {
        uint32_t point;
        size_t length = jinja_utf8_decode(bytes + i, n - i, &point);
        if (!jinja_is_space(point))
            break;
        i += length;
    }
    return i;
}
