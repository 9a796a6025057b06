/* Discovery's packets: what a service says is read back, questions are told from noise, and any bytes are survived. */
#include "proto/dns_sd.h"
#include "tests/check.h"

static const char key[] = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";

static struct dns_sd_service sample(void)
{
    struct dns_sd_service s = {.instance = "pi.kitchen \xC3\xA4 [12ab]",
                               .host = "brigade-12ab",
                               .name = "pi.kitchen \xC3\xA4",
                               .version = "0.1.0",
                               .port = 7700,
                               .address = {10, 0, 0, 7}};
    memcpy(s.public_key, key, sizeof key);
    return s;
}

static void said_is_read(void)
{
    struct dns_sd_service s = sample(), back[4];
    uint8_t packet[DNS_SD_PACKET_MAX];
    size_t n = dns_sd_answer(&s, 120, NULL, 0, packet);
    REQUIRE(n > 0);
    REQUIRE(dns_sd_read(packet, n, back, 4) == 1);
    CHECK_TEXT(back[0].instance, s.instance);
    CHECK_TEXT(back[0].name, s.name);
    CHECK_TEXT(back[0].public_key, key);
    CHECK_TEXT(back[0].version, "0.1.0");
    CHECK_INT(back[0].port, 7700);
    CHECK(!memcmp(back[0].address, s.address, 4));
    CHECK_INT(dns_sd_read(packet, n, back, 0), 0);
    n = dns_sd_answer(&s, 0, NULL, 0, packet); /* goodbye */
    CHECK_INT(dns_sd_read(packet, n, back, 4), 0);
    CHECK(!dns_sd_asks(packet, n, &s)); /* an answer asks nothing */
}

/* A name as it stands in a packet, and a question. */
static size_t put_question(uint8_t *out, const char *name, unsigned type)
{
    size_t at = 0;
    while (*name) {
        size_t n = strcspn(name, ".");
        out[at++] = (uint8_t)n;
        memcpy(out + at, name, n);
        at += n;
        name += n + (name[n] == '.');
    }
    const uint8_t end[] = {0, 0, (uint8_t)type, 0, 1};
    memcpy(out + at, end, sizeof end);
    return at + sizeof end;
}

static bool asks(const char *name, unsigned type)
{
    static const uint8_t head[12] = {0, 9, 1, 0, 0, 1};
    struct dns_sd_service s = sample();
    uint8_t packet[300];
    memcpy(packet, head, sizeof head);
    return dns_sd_asks(packet, 12 + put_question(packet + 12, name, type), &s);
}

static void questions_are_known(void)
{
    struct dns_sd_service s = sample(), back[1];
    uint8_t query[DNS_SD_PACKET_MAX], answer[DNS_SD_PACKET_MAX];
    size_t n = dns_sd_query(query);
    CHECK(dns_sd_asks(query, n, &s));
    query[0] = 0x12;
    query[1] = 0x34;
    size_t size = dns_sd_answer(&s, 120, query, n, answer); /* to a plain resolver: number and question repeated */
    CHECK(answer[0] == 0x12 && answer[1] == 0x34 && answer[5] == 1 && !memcmp(answer + 12, query + 12, n - 12));
    CHECK_INT(dns_sd_read(answer, size, back, 1), 1);
    CHECK(asks("_BRIGADE._tcp.local", 12) && asks("_services._dns-sd._udp.local", 12) && asks("brigade-12ab.local", 1));
    CHECK(asks("_brigade._tcp.local", 255));
    CHECK(!asks("_brigade._tcp.local", 1) && !asks("_http._tcp.local", 12) && !asks("brigade-12ac.local", 1));
}

/* Every bit flipped, every length, loops of pointers: read or not, but survived (the sanitizers look on). */
static void any_bytes_are_survived(void)
{
    struct dns_sd_service s = sample(), back[4];
    uint8_t packet[DNS_SD_PACKET_MAX], bytes[DNS_SD_PACKET_MAX], out[DNS_SD_PACKET_MAX];
    size_t n = dns_sd_answer(&s, 120, NULL, 0, packet), seen = 0;
    for (size_t bit = 0; bit < n * 8; bit++) {
        memcpy(bytes, packet, n);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        size_t found = dns_sd_read(bytes, n, back, 4);
        seen += found;
        for (size_t i = 0; i < found; i++)
            for (const char *c = back[i].name; *c; c++)
                CHECK((unsigned char)*c >= 32 && *c != 127);
        dns_sd_asks(bytes, n, &s);
        dns_sd_answer(&s, 1, bytes, n, out);
    }
    CHECK(seen > n); /* most flips leave something to read */
    for (size_t size = 0; size < n; size++)
        CHECK(dns_sd_read(packet, size, back, 4) <= 1);
    uint8_t loop[64] = {0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0xC0, 12};
    CHECK_INT(dns_sd_read(loop, sizeof loop, back, 4), 0);
    uint32_t random = 1;
    for (int round = 0; round < 20000; round++) {
        for (size_t i = 0; i < 100; i++) {
            random = random * 1664525 + 1013904223;
            bytes[i] = (uint8_t)(random >> 24) & (round % 3 ? 0xC3 : 0xFF);
        }
        bytes[2] = round % 2 ? 0x84 : 0;
        dns_sd_read(bytes, 100, back, 4);
        dns_sd_asks(bytes, 100, &s);
    }
}

static const struct check_test tests[] = {
    {"what is said is read", said_is_read},
    {"questions are known", questions_are_known},
    {"any bytes are survived", any_bytes_are_survived},
};

CHECK_MAIN(tests)
