/* Escaping and number formats of the API's hot path. Owns nothing. */
#include "coordinator/api/json_text.h"

#include <math.h>
#include <string.h>

#include "engine/text/utf8.h"

void json_put_text(struct buffer *b, const char *text, size_t bytes)
{
    size_t from = 0, i = 0;
    buffer_putc(b, '"');
    while (i < bytes) {
        unsigned char c = (unsigned char)text[i];
        uint32_t value;
        unsigned size = utf8_decode(text + i, bytes - i, &value);
        if (size && c >= 0x20 && c != '"' && c != '\\') {
            i += size;
            continue;
        }
        buffer_append(b, text + from, i - from);
        if (!size)
            buffer_puts(b, UTF8_REPLACEMENT);
        else if (c == '\n')
            buffer_puts(b, "\\n");
        else if (c >= 0x20)
            buffer_printf(b, "\\%c", c);
        else
            buffer_printf(b, "\\u%04x", c);
        from = ++i;
    }
    buffer_append(b, text + from, i - from);
    buffer_putc(b, '"');
}

void json_put_logprob(struct buffer *b, float value)
{
    buffer_printf(b, "%.9g", isfinite(value) ? (double)value : -9999.0);
}
