/* Real workers measure themselves and their links; and any allocation of theirs may fail. */
#include "tests/check.h"

#include <dirent.h>
#include <signal.h>

#include "tests/worker/rig_main.h"

static int files_in(const char *folder)
{
    DIR *d = opendir(folder);
    int count = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        count += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return count;
}

static void damage_files_in(const char *folder)
{
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        FILE *f = e->d_name[0] == '.' ? NULL : fopen(path, "r+b");
        if (!f)
            continue;
        fseek(f, 60, SEEK_SET);
        fputc('x', f);
        fclose(f);
    }
    if (d)
        closedir(d);
}

static void a_device_is_profiled_once(void)
{
    struct rig_worker w;
    char cache[128];
    snprintf(cache, sizeof cache, "%s/cache", rig.folder);
    struct control_message m, probe = {.kind = CONTROL_PROBE};
    strcpy(probe.u.probe.model, RIG_MODEL);
    probe.u.probe.fingerprint = rig.fingerprint;
    probe.u.probe.context = 128;
    probe.u.probe.chunk = 32;
    for (int round = 0; round < 4; round++) {
        FINE(rig_start(&rig, &w, "measured", (const char *[]){"--cache", cache, "--throttle", "1.5", NULL}));
        CHECK_INT(rig_logged(&w, "1.50 times as long"), 1);
        FINE(rig_claim(&rig, &w));
        for (int again = 0; again < 2; again++) {
            REQUIRE(rig_ask(w.control, &probe, &m, 30000));
            REQUIRE(m.kind == CONTROL_PROFILE);
            CHECK_INT(m.u.profile.cached, again || round == 1 || round == 3);
            CHECK(m.u.profile.read_bytes_per_s > 1e6 && m.u.profile.int8_macs_per_s > 1e7);
            CHECK(m.u.profile.head_seconds > 0 && m.u.profile.overhead_seconds > 0);
            CHECK(m.u.profile.embedding_seconds > 0);
            CHECK(m.u.profile.cell_count >= 8); /* 14, unless this machine is too busy for its budget */
            bool decode = false, prefill = false, head = false;
            for (uint32_t i = 0; i < m.u.profile.cell_count; i++) {
                const struct control_cell *c = &m.u.profile.cells[i];
                CHECK(c->seconds > 0 && c->past + c->tokens <= 128);
                head |= c->kind == FRAME_KIND_HEAD;
                decode |= c->tokens == 1 && c->sequences == 1;
                prefill |= c->tokens == 32 && c->sequences == 1;
            }
            CHECK(decode && prefill && head);
            control_free(&m);
        }
        CHECK_INT(files_in(cache), 1);
        if (round == 1)
            damage_files_in(cache);
        CHECK_INT(rig_logged(&w, "is damaged"), round == 2);
        CHECK_INT(rig_stop(&w, 5000), 0);
    }
}

static void links_are_measured_and_heartbeats_go_on(void)
{
    struct rig_worker w[2];
    struct rig_worker *all[2] = {&w[0], &w[1]};
    struct control_message m, probe = {.kind = CONTROL_PROBE_LINK, .request = 4242}, beat = {.kind = CONTROL_HEARTBEAT};
    FINE(rig_start(&rig, &w[0], "here", NULL));
    FINE(rig_start(&rig, &w[1], "there", NULL));
    FINE(rig_claim(&rig, &w[0]));
    FINE(rig_claim(&rig, &w[1]));
    FINE(rig_allow(&rig, all, 2));
    strcpy(probe.u.probe_link.peer.name, "there");
    snprintf(probe.u.probe_link.peer.endpoint, 256, "tcp://127.0.0.1:%d", w[1].data_port);
    strcpy(probe.u.probe_link.peer.public_key, w[1].key);
    probe.u.probe_link.rounds = 200;
    probe.u.probe_link.bytes = 4 << 20;
    probe.u.probe_link.token_bytes = 4096;
    unsigned before = rig_beats_heard;
    CHECK_INT(rig_say(w[0].control, &probe), 0);
    for (int i = 0; i < 5; i++) {
        CHECK_INT(rig_say(w[0].control, &beat), 0);
        REQUIRE(rig_hear(w[0].control, 0, CONTROL_HEARTBEAT_REPLY, &m, 2000)); /* while it is measuring */
    }
    CHECK(rig_beats_heard - before >= 5);
    REQUIRE(rig_hear(w[0].control, 4242, 0, &m, 20000));
    REQUIRE(m.kind == CONTROL_LINK_MEASURED);
    CHECK_TEXT(m.u.link_measured.peer, "there");
    CHECK(m.u.link_measured.rtt_seconds > 1e-6 && m.u.link_measured.rtt_seconds < 0.5);
    CHECK(m.u.link_measured.bytes_per_s > 1e6 && m.u.link_measured.bytes_per_s < 1e13);
    CHECK(m.u.link_measured.back_bytes_per_s > 1e6);
    /* Nobody there: a line that says why. */
    rig_stop(&w[1], 5000);
    REQUIRE(rig_ask(w[0].control, &probe, &m, 20000));
    CHECK(m.kind == CONTROL_FAILURE && strstr(m.u.failure.text, "Connection refused"));
    CHECK_INT(rig_stop(&w[0], 5000), 0);
}

/* Start, claim, load, a micro-batch, a profile: with the k-th allocation failing. Whatever does not work is told or
 * left out; the worker ends in good order: 0, or 1 with a line. */
static void any_allocation_may_fail(void)
{
    int ended[2] = {0, 0};
    for (unsigned k = 1; k < 1200; k += k < 60 ? 3 : k < 200 ? 13 : 97) {
        struct rig_worker w;
        struct rig_worker *all[1] = {&w};
        struct rig_pipe p = {0};
        struct rig_result r;
        char text[16];
        snprintf(text, sizeof text, "%u", k);
        setenv("BRIGADE_FAIL_ALLOC", text, 1); /* this process has read its own setting long ago */
        const char *wrong = rig_start(&rig, &w, "starved", NULL);
        unsetenv("BRIGADE_FAIL_ALLOC");
        rig_patience_ms = 250;
        if (!wrong && !rig_claim(&rig, &w) && !rig_pipe_open(&rig, all, 1, 1, CODEC_F32, &p)) {
            struct rig_span s = {.sequence = 1, .count = 5, .want = 2, .tokens = tokens};
            if (!rig_feed(&p, &s, 1, true) && rig_result(&p, &r, rig_patience_ms))
                rig_result_free(&r);
            struct control_message m, probe = {.kind = CONTROL_PROBE};
            strcpy(probe.u.probe.model, RIG_MODEL);
            probe.u.probe.context = 64;
            probe.u.probe.chunk = 16;
            if (rig_ask(w.control, &probe, &m, 5000))
                control_free(&m);
        }
        rig_patience_ms = 0;
        rig_pipe_close(&p);
        if (!wrong)
            kill(w.pid, SIGTERM);
        int status = rig_wait(&w, 8000);
        if (status != 0 && status != 1)
            CHECK_FAIL("allocation %u: the worker ended with %d (%s)", k, status, wrong ? wrong : "after its start");
        else
            ended[status]++;
        rig_stop(&w, 0);
    }
    CHECK(ended[0] > 5 && ended[1] > 0);
}

static const struct check_test tests[] = {
    {"a device is profiled once", a_device_is_profiled_once},
    {"links are measured and heartbeats go on", links_are_measured_and_heartbeats_go_on},
    {"any allocation may fail", any_allocation_may_fail},
};

int main(int argc, char **argv)
{
    return rig_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
