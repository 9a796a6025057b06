/* DNS packets, written and read. Pure; any thread. */
#include "proto/dns_sd.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "proto/wire.h"

#define NAME_TEXT 260
#define KIND "_brigade._tcp.local"
#define ALL_KINDS "_services._dns-sd._udp.local"
#define RECORDS_MAX 64 /* of one packet that are looked at */
#define FLUSH 0x8000   /* in a record's class: replaces what caches hold */

enum { TYPE_A = 1, TYPE_PTR = 12, TYPE_TXT = 16, TYPE_SRV = 33, TYPE_ANY = 255, CLASS_IN = 1 };

/* ---- Writing ----------------------------------------------------------------------------------------------------- */

struct writer {
    uint8_t *out;
    size_t at;
    bool full;
};

static void put_bytes(struct writer *w, const void *bytes, size_t n)
{
    if (w->full || n > DNS_SD_PACKET_MAX - w->at) {
        w->full = true;
        return;
    }
    memcpy(w->out + w->at, bytes, n);
    w->at += n;
}

static void put16(struct writer *w, unsigned value)
{
    put_bytes(w, (const uint8_t[]){(uint8_t)(value >> 8), (uint8_t)value}, 2);
}

static void put_label(struct writer *w, const char *label, size_t n)
{
    uint8_t length = (uint8_t)(n > 63 ? 63 : n);
    put_bytes(w, &length, 1);
    put_bytes(w, label, length);
}

/* Labels between dots; a first label of its own, which may hold dots, goes before. */
static void put_name(struct writer *w, const char *first, const char *rest)
{
    if (first)
        put_label(w, first, strlen(first));
    while (*rest) {
        size_t n = strcspn(rest, ".");
        put_label(w, rest, n);
        rest += n + (rest[n] == '.');
    }
    put_bytes(w, "", 1);
}

/* A record's head; returns where its length goes. */
static size_t begin_record(struct writer *w, unsigned type, bool unique, uint32_t ttl)
{
    put16(w, type);
    put16(w, CLASS_IN | (unique ? FLUSH : 0));
    put16(w, ttl >> 16);
    put16(w, ttl & 0xFFFF);
    put16(w, 0);
    return w->at - 2;
}

static void end_record(struct writer *w, size_t length_at)
{
    if (w->full)
        return;
    size_t n = w->at - length_at - 2;
    w->out[length_at] = (uint8_t)(n >> 8);
    w->out[length_at + 1] = (uint8_t)n;
}

static void put_text(struct writer *w, const char *key, const char *value)
{
    char pair[128];
    int n = snprintf(pair, sizeof pair, "%s=%s", key, value);
    uint8_t length = (uint8_t)(n < (int)sizeof pair ? n : (int)sizeof pair - 1);
    put_bytes(w, &length, 1);
    put_bytes(w, pair, length);
}

static void put_head(struct writer *w, unsigned id, unsigned flags, unsigned questions, unsigned answers, unsigned more)
{
    put16(w, id);
    put16(w, flags);
    put16(w, questions);
    put16(w, answers);
    put16(w, 0);
    put16(w, more);
}

size_t dns_sd_query(uint8_t out[static DNS_SD_PACKET_MAX])
{
    struct writer w = {.out = out};
    put_head(&w, 0, 0, 1, 0, 0);
    put_name(&w, NULL, KIND);
    put16(&w, TYPE_PTR);
    put16(&w, CLASS_IN);
    return w.at;
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

struct reader {
    const uint8_t *packet;
    size_t size, at;
    bool bad;
};

static unsigned get16(struct reader *r)
{
    if (r->bad || r->size - r->at < 2) {
        r->bad = true;
        return 0;
    }
    unsigned value = (unsigned)r->packet[r->at] << 8 | r->packet[r->at + 1];
    r->at += 2;
    return value;
}

/* A name as text; dots inside labels become '\1', so that texts compare as names do. Pointers lead backward only. */
static void get_name(struct reader *r, char out[static NAME_TEXT])
{
    size_t at = r->at, n = 0, least = r->at;
    bool jumped = false;
    *out = 0;
    while (!r->bad) {
        if (at >= r->size) {
            r->bad = true;
        } else if (r->packet[at] >= 0xC0) {
            size_t to = at + 1 < r->size ? (size_t)(r->packet[at] & 0x3F) << 8 | r->packet[at + 1] : r->size;
            if (!jumped)
                r->at = at + 2;
            jumped = true;
            r->bad = to >= least;
            at = least = to;
        } else {
            size_t length = r->packet[at];
            if (length > 63 || length > r->size - at - 1 || n + length + 2 > NAME_TEXT) {
                r->bad = true;
                break;
            }
            if (!length) {
                if (!jumped)
                    r->at = at + 1;
                break;
            }
            if (n)
                out[n++] = '.';
            for (size_t i = 1; i <= length; i++)
                out[n++] = r->packet[at + i] == '.' ? '\1' : r->packet[at + i] ? (char)r->packet[at + i] : ' ';
            out[n] = 0;
            at += length + 1;
        }
    }
    if (r->bad)
        *out = 0;
}

/* Names as get_name gives them. */
static void full_name(const char *first, const char *rest, char out[static NAME_TEXT])
{
    int n = snprintf(out, NAME_TEXT, "%s", first);
    for (char *c = out; *c; c++)
        if (*c == '.')
            *c = '\1';
    snprintf(out + n, NAME_TEXT - (size_t)n, ".%s", rest);
}

struct head {
    unsigned id, flags, questions, answers, authority, more;
};

static struct head get_head(struct reader *r)
{
    struct head h;
    h.id = get16(r);
    h.flags = get16(r);
    h.questions = get16(r);
    h.answers = get16(r);
    h.authority = get16(r);
    h.more = get16(r);
    return h;
}

bool dns_sd_asks(const uint8_t *packet, size_t size, const struct dns_sd_service *s)
{
    struct reader r = {.packet = packet, .size = size};
    struct head h = get_head(&r);
    char instance[NAME_TEXT], host[NAME_TEXT], name[NAME_TEXT];
    if (r.bad || h.flags & 0xF800) /* an answer, or no standard query */
        return false;
    full_name(s->instance, KIND, instance);
    full_name(s->host, "local", host);
    for (unsigned i = 0; i < h.questions && i < RECORDS_MAX; i++) {
        get_name(&r, name);
        unsigned type = get16(&r), class = get16(&r) & 0x7FFF;
        if (r.bad)
            return false;
        if (class != CLASS_IN && class != TYPE_ANY)
            continue;
        bool any = type == TYPE_ANY;
        if (((type == TYPE_PTR || any) && (!strcasecmp(name, KIND) || !strcasecmp(name, ALL_KINDS))) ||
            ((type == TYPE_SRV || type == TYPE_TXT || any) && !strcasecmp(name, instance)) ||
            ((type == TYPE_A || any) && !strcasecmp(name, host)))
            return true;
    }
    return false;
}

size_t dns_sd_answer(const struct dns_sd_service *s, uint32_t ttl_seconds, const uint8_t *query, size_t query_size,
                     uint8_t out[static DNS_SD_PACKET_MAX])
{
    struct writer w = {.out = out};
    struct reader r = {.packet = query, .size = query ? query_size : 0};
    struct head h = {0};
    char asked[NAME_TEXT];
    bool plain = query != NULL, addressed = memcmp(s->address, "\0\0\0\0", 4) != 0;
    size_t at;
    if (query) {
        h = get_head(&r);
        get_name(&r, asked);
        if (r.bad || h.questions != 1 || r.size - r.at < 4)
            return 0;
        ttl_seconds = ttl_seconds < 10 ? ttl_seconds : 10; /* such a client sees no goodbye */
    }
    put_head(&w, plain ? h.id : 0, 0x8400, plain, 2, 2 + addressed);
    if (plain)
        put_bytes(&w, query + 12, r.at + 4 - 12);
    put_name(&w, NULL, KIND);
    at = begin_record(&w, TYPE_PTR, false, ttl_seconds);
    put_name(&w, s->instance, KIND);
    end_record(&w, at);
    put_name(&w, NULL, ALL_KINDS);
    at = begin_record(&w, TYPE_PTR, false, ttl_seconds);
    put_name(&w, NULL, KIND);
    end_record(&w, at);
    put_name(&w, s->instance, KIND);
    at = begin_record(&w, TYPE_SRV, !plain, ttl_seconds);
    put16(&w, 0);
    put16(&w, 0);
    put16(&w, s->port);
    put_name(&w, s->host, "local");
    end_record(&w, at);
    put_name(&w, s->instance, KIND);
    at = begin_record(&w, TYPE_TXT, !plain, ttl_seconds);
    put_text(&w, "name", s->name);
    put_text(&w, "key", s->public_key);
    put_text(&w, "version", s->version);
    end_record(&w, at);
    if (addressed) {
        put_name(&w, s->host, "local");
        at = begin_record(&w, TYPE_A, !plain, ttl_seconds);
        put_bytes(&w, s->address, 4);
        end_record(&w, at);
    }
    return w.full ? 0 : w.at;
}

/* Where a record's data lies. */
struct record {
    char name[NAME_TEXT];
    unsigned type;
    uint32_t ttl;
    size_t data, size;
};

static bool get_record(struct reader *r, struct record *out)
{
    get_name(r, out->name);
    out->type = get16(r);
    get16(r);
    out->ttl = (uint32_t)get16(r) << 16;
    out->ttl |= get16(r);
    out->size = get16(r);
    out->data = r->at;
    if (r->bad || out->size > r->size - r->at)
        return false;
    r->at += out->size;
    return true;
}

static void read_texts(const uint8_t *data, size_t size, struct dns_sd_service *s)
{
    char pair[256];
    for (size_t at = 0; at < size && data[at] <= size - at - 1; at += data[at] + (size_t)1) {
        snprintf(pair, sizeof pair, "%.*s", data[at], (const char *)data + at + 1);
        if (!strncmp(pair, "name=", 5))
            wire_prose(s->name, sizeof s->name, pair + 5);
        else if (!strncmp(pair, "key=", 4) && key_text_valid(pair + 4))
            memcpy(s->public_key, pair + 4, KEY_TEXT);
        else if (!strncmp(pair, "version=", 8))
            wire_prose(s->version, sizeof s->version, pair + 8);
    }
}

/* Fills in what the packet's records say of one instance. */
static void complete(const uint8_t *packet, size_t size, const struct record *records, size_t count,
                     const char *instance, struct dns_sd_service *s)
{
    char host[NAME_TEXT] = "";
    for (size_t i = 0; i < count; i++) {
        const struct record *r = &records[i];
        if (strcasecmp(r->name, instance))
            continue;
        if (r->type == TYPE_SRV && r->size > 6) {
            struct reader in = {.packet = packet, .size = size, .at = r->data + 4};
            s->port = (uint16_t)get16(&in);
            get_name(&in, host);
        } else if (r->type == TYPE_TXT) {
            read_texts(packet + r->data, r->size, s);
        }
    }
    for (size_t i = 0; i < count && *host; i++)
        if (records[i].type == TYPE_A && records[i].size == 4 && !strcasecmp(records[i].name, host))
            memcpy(s->address, packet + records[i].data, 4);
    wire_prose(s->host, sizeof s->host, host);
}

size_t dns_sd_read(const uint8_t *packet, size_t size, struct dns_sd_service *out, size_t most)
{
    struct reader r = {.packet = packet, .size = size};
    struct head h = get_head(&r);
    struct record records[RECORDS_MAX];
    char name[NAME_TEXT];
    size_t count = 0, found = 0;
    if (r.bad || !(h.flags & 0x8000))
        return 0;
    for (unsigned i = 0; i < h.questions && !r.bad; i++) {
        get_name(&r, name);
        get16(&r);
        get16(&r);
    }
    unsigned all = h.answers + h.authority + h.more;
    while (count < all && count < RECORDS_MAX && get_record(&r, &records[count]))
        count++;
    for (size_t i = 0; i < count && found < most; i++) {
        if (records[i].type != TYPE_PTR || !records[i].ttl || strcasecmp(records[i].name, KIND))
            continue;
        struct reader in = {.packet = packet, .size = size, .at = records[i].data};
        struct dns_sd_service s = {0};
        get_name(&in, name);
        size_t n = strlen(name), kind = sizeof KIND; /* with the dot before it */
        if (in.bad || n <= kind || strcasecmp(name + n - kind + 1, KIND))
            continue;
        complete(packet, size, records, count, name, &s);
        name[n - kind] = 0;
        for (char *c = name; *c; c++)
            if (*c == '\1')
                *c = '.';
        wire_prose(s.instance, sizeof s.instance, name);
        if (s.port)
            out[found++] = s;
    }
    return found;
}
