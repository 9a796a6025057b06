/* Node keys: pairs that belong together, files that only their owner reads. */
#include "tests/check.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "proto/keys.h"
#include "tests/proto/memory_search.h"

static char folder[] = "/tmp/brigade-keys-XXXXXX";
static char path[128];

static void write_file(const char *text, mode_t mode)
{
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    CHECK(!chmod(path, mode));
}

static void a_pair_comes_back_from_its_file(void)
{
    struct node_key *k = NULL, *back = NULL;
    struct error err = {0};
    REQUIRE(!key_generate(&k, &err));
    CHECK_INT(strlen(key_public_text(k)), 40);
    CHECK(key_text_valid(key_public_text(k)) && key_text_valid(key_secret_text(k)));
    /* ZeroMQ derives the same public key from the secret: an oracle that is not ours. */
    char derived[41];
    CHECK_INT(zmq_curve_public(derived, key_secret_text(k)), 0);
    CHECK_TEXT(key_public_text(k), derived);
    unlink(path);
    CHECK_INT(key_save(k, path, &err), 0);
    struct stat st;
    CHECK(!stat(path, &st) && (st.st_mode & 0777) == 0600);
    CHECK_INT(key_load(path, &back, &err), 0);
    REQUIRE(back);
    CHECK_TEXT(key_public_text(back), key_public_text(k));
    CHECK_TEXT(key_secret_text(back), key_secret_text(k));
    CHECK_INT(key_save(back, path, &err), ERR_USAGE);
    CHECK(strstr(err.text, "never overwritten"));
    key_free(back);
    struct node_key *other = NULL;
    REQUIRE(!key_generate(&other, &err));
    CHECK(strcmp(key_public_text(other), key_public_text(k)));
    key_free(other);
    key_free(k);
    key_free(NULL);
}

static void pseudonyms_hide_and_tell_apart(void)
{
    const char *a = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs", *b = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
    uint64_t one = key_pseudonym(a, "boot");
    CHECK(one && one == key_pseudonym(a, "boot"));
    CHECK(one != key_pseudonym(b, "boot") && one != key_pseudonym(a, "boot!"));
    CHECK_INT(key_pseudonym(a, ""), 0);
}

static void a_known_pair(void)
{
    /* The test vector of ZeroMQ's own documentation (zmq_curve). */
    write_file("# note\nD:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs\r\n", 0600);
    struct node_key *k = NULL;
    struct error err = {0};
    CHECK_INT(key_load(path, &k, &err), 0);
    REQUIRE(k);
    CHECK_TEXT(key_public_text(k), "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID");
    key_free(k);
}

static void bad_files_are_refused(void)
{
    static const char secret[] = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs\n";
    static const char *const wrong[] = {
        "", "\n", "# only a note\n", "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%c\n",
        "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs~\n", "~:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs\n",
        "#####################################################\n########################################x\n",
        "%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%\n", /* over 2^32 in a group */
        "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs\nD:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs\n",
    };
    struct node_key *k = NULL;
    struct error err = {0};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        write_file(wrong[i], 0600);
        CHECK_INT(key_load(path, &k, &err), ERR_FORMAT);
        CHECK(!strstr(err.text, "IlAW")); /* a complaint never shows the secret */
    }
    static const mode_t modes[] = {0640, 0604, 0660, 0610};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        write_file(secret, modes[i]);
        CHECK_INT(key_load(path, &k, &err), ERR_AUTH);
        CHECK(strstr(err.text, "chmod 600"));
    }
    unlink(path);
    CHECK_INT(key_load(path, &k, &err), ERR_NOTFOUND);
    CHECK(strstr(err.text, "keygen"));
    CHECK_INT(key_load(folder, &k, &err), ERR_FORMAT);
    char gone[160];
    snprintf(gone, sizeof gone, "%s/none/key", folder);
    struct node_key *fresh = NULL;
    REQUIRE(!key_generate(&fresh, &err));
    CHECK_INT(key_save(fresh, gone, &err), ERR_IO);
    key_free(fresh);
    CHECK(k == NULL);
}

/* Made, saved, read back and freed, a secret leaves no copy anywhere; while it lives, it lies in locked memory. */
static void secrets_are_locked_and_wiped(void)
{
    struct node_key *k = NULL, *back = NULL;
    struct error err = {0};
    REQUIRE(!key_generate(&k, &err));
    struct needle text = needle_of(key_secret_text(k), strlen(key_secret_text(k)));
    uint8_t raw[32];
    REQUIRE(zmq_z85_decode(raw, key_secret_text(k)));
    struct needle bytes = needle_of(raw, sizeof raw);
    explicit_bzero(raw, sizeof raw);
    unlink(path);
    REQUIRE(!key_save(k, path, &err));
    REQUIRE(!key_load(path, &back, &err));
    int locked = memory_locked(key_secret_text(k)), copies = memory_count(&text);
    key_free(back);
    key_free(k);
    int left = memory_count(&text) + memory_count(&bytes);
    if (copies < 0)
        SKIP("this system does not show a process its memory");
    if (locked >= 0)
        CHECK_INT(locked, 1);
    CHECK_INT(copies, 2); /* the two keys: or the search finds nothing at all */
    CHECK_INT(left, 0);
}

static void key_texts_are_judged(void)
{
    CHECK(key_text_valid("rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"));
    CHECK(!key_text_valid(NULL));
    CHECK(!key_text_valid(""));
    CHECK(!key_text_valid("rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf"));
    CHECK(!key_text_valid("rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf77"));
    CHECK(!key_text_valid("rq:rM>}U?@Lns47E1%kR o@n%FcmmsL/@{H8]yf7"));
    CHECK(!key_text_valid("########################################"));
}

static const struct check_test tests[] = {
    {"pseudonyms hide and tell apart", pseudonyms_hide_and_tell_apart},
    {"a pair comes back from its file", a_pair_comes_back_from_its_file},
    {"a known pair", a_known_pair},
    {"bad files are refused", bad_files_are_refused},
    {"secrets are locked and wiped", secrets_are_locked_and_wiped},
    {"key texts are judged", key_texts_are_judged},
};

int main(int argc, char **argv)
{
    if (!mkdtemp(folder))
        return 1;
    snprintf(path, sizeof path, "%s/node.key", folder);
    int rc = check_main(argc, argv, tests, sizeof tests / sizeof *tests);
    unlink(path);
    rmdir(folder);
    return rc;
}
