/* qcow2 images: what is written is read, whatever the sizes of clusters and counts; what is counted
 * is used. */
#include "tests/unit/qcow2_image.h"
#include "tests/unit/suite.h"
#include <pthread.h>

#define DISK_BYTES ((size_t)3 << 20)

static const struct variant {
    unsigned version, cluster_bits, order;
} variants[] = {
    {3, 16, 4}, {2, 16, 4}, {3, 9, 0},  {3, 9, 6},  {2, 9, 4},  {3, 12, 1},
    {3, 12, 2}, {3, 13, 3}, {3, 15, 5}, {3, 21, 4}, {2, 21, 4}, {3, 10, 6},
};
#define VARIANTS (int)(sizeof(variants) / sizeof(variants[0]))

static struct qcow2_creation creation_of(const struct variant *variant)
{
    return (struct qcow2_creation){
        .size = DISK_BYTES,
        .version = variant->version,
        .cluster_bits = variant->cluster_bits,
        .refcount_order = variant->order,
        .refcount_order_given = true,
    };
}

/* Do many things to an image and to a copy of what it must contain. */
static void exercise(struct qcow2 *image, uint8_t *model, size_t size, unsigned steps,
                     uint64_t *state)
{
    uint8_t *bytes = malloc(size);

    for (unsigned step = 0; step < steps; step++) {
        uint64_t what = next_random(state) % 16;
        uint64_t most = next_random(state) % 4 ? 16u << 10 : 512u << 10;
        uint64_t offset = next_random(state) % (size / 512) * 512;
        uint64_t length = (next_random(state) % (most / 512) + 1) * 512;
        length = length < size - offset ? length : size - offset;
        if (what < 9) {
            fill_random(bytes, length, state);
            ck_assert_int_eq(image_write(image, offset, bytes, length), 0);
            memcpy(model + offset, bytes, length);
        } else if (what < 12) {
            ck_assert_int_eq(qcow2_write_zeroes(image, offset, length, what == 11, false), 0);
            memset(model + offset, 0, length);
        } else if (what < 14) {
            /* What it reads as afterwards is the image's choice. */
            ck_assert_int_eq(qcow2_discard(image, offset, length), 0);
            ck_assert_int_eq(image_read(image, offset, model + offset, length), 0);
        } else if (what == 14) {
            ck_assert_int_eq(qcow2_flush(image), 0);
        } else {
            ck_assert_int_eq(image_read(image, offset, bytes, length), 0);
            ck_assert_mem_eq(bytes, model + offset, length);
        }
    }
    free(bytes);
}

/* Opened and closed several times. Closes the file. */
static void live(int fd, uint64_t state)
{
    uint8_t *model = calloc(1, DISK_BYTES);

    image_is_sound(fd);
    for (unsigned life = 0; life < 4; life++) {
        struct qcow2 *image = image_open(fd, false);
        image_contains(image, model, DISK_BYTES);
        exercise(image, model, DISK_BYTES, 60, &state);
        image_contains(image, model, DISK_BYTES);
        ck_assert(!qcow2_is_corrupt(image));
        qcow2_close(image);
        image_is_sound(fd);
    }
    close(fd);
    free(model);
}

START_TEST(what_is_written_is_read)
{
    struct qcow2_creation creation = creation_of(&variants[_i]);
    live(image_make(&creation), (uint64_t)_i + 1);
}
END_TEST

START_TEST(direct_access_reads_what_is_written)
{
    struct qcow2_creation creation = creation_of(&variants[_i]);
    int fd = image_make_direct(&creation);

    if (fd >= 0) {
        live(fd, (uint64_t)_i + 1);
    }
}
END_TEST

START_TEST(an_overlay_shows_what_is_below)
{
    const struct variant *variant = &variants[_i];
    struct qcow2_creation creation = creation_of(variant);
    uint64_t state = (uint64_t)_i + 100;
    uint8_t *below = calloc(1, DISK_BYTES), *model = calloc(1, DISK_BYTES);
    size_t base_bytes = DISK_BYTES - 77 * 512;

    creation.size = base_bytes;
    int base = image_make(&creation);
    struct qcow2 *image = image_open(base, false);
    exercise(image, below, base_bytes, 40, &state);
    qcow2_close(image);
    image = image_open(base, true);
    creation.size = DISK_BYTES;
    creation.backing = "base";
    creation.backing_format = "qcow2";
    int fd = image_make(&creation);
    memcpy(model, below, base_bytes);
    for (unsigned life = 0; life < 3; life++) {
        const struct qcow2_backing backing = {.image = image, .size = qcow2_size(image)};
        struct qcow2 *overlay = image_open(fd, false);
        ck_assert_str_eq(qcow2_header(overlay)->backing, "base");
        ck_assert_str_eq(qcow2_header(overlay)->backing_format, "qcow2");
        qcow2_set_backing(overlay, &backing);
        image_contains(overlay, model, DISK_BYTES);
        exercise(overlay, model, DISK_BYTES, 40, &state);
        image_contains(overlay, model, DISK_BYTES);
        qcow2_close(overlay);
        image_is_sound(fd);
        image_contains(image, below, base_bytes);
    }
    qcow2_close(image);
    close(base);
    close(fd);
    free(below);
    free(model);
}
END_TEST

START_TEST(a_disk_changes_its_size)
{
    const struct variant *variant = &variants[_i];
    struct qcow2_creation creation = creation_of(variant);
    static const size_t sizes[] = {5 << 20, 1 << 20, (6 << 20) + 512, (2 << 20) + 1536, 7 << 20};
    uint8_t *model = calloc(1, 8 << 20);
    uint64_t state = (uint64_t)_i + 200;
    size_t size = DISK_BYTES;
    struct error err;
    int fd = image_make(&creation);

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct qcow2 *image = image_open(fd, false);
        exercise(image, model, size, 20, &state);
        error_clear(&err);
        ck_assert_msg(qcow2_resize(image, sizes[i], &err) == 0, "%s", err.message);
        if (sizes[i] < size) {
            memset(model + sizes[i], 0, size - sizes[i]);
        }
        size = sizes[i];
        image_contains(image, model, size);
        exercise(image, model, size, 20, &state);
        qcow2_close(image);
        image_is_sound(fd);
    }
    close(fd);
    free(model);
}
END_TEST

START_TEST(what_was_larger_below_does_not_appear)
{
    const struct qcow2_creation small = {
        .size = 1 << 20, .version = _i ? 2 : 3, .backing = "base", .backing_format = "raw"};
    uint8_t *model = calloc(1, 4 << 20);
    uint64_t state = 7;
    struct error err;
    int base = image_file(), fd = image_make(&small);

    fill_random(model, 2 << 20, &state);
    ck_assert_int_eq(pwrite(base, model, 2 << 20, 0), 2 << 20);
    memset(model + (1 << 20), 0, 1 << 20);
    struct qcow2 *image = image_open(fd, false);
    const struct qcow2_backing backing = {.fd = base, .size = 2 << 20};
    qcow2_set_backing(image, &backing);
    ck_assert_int_eq(qcow2_resize(image, 4 << 20, &err), 0);
    image_contains(image, model, 4 << 20);
    qcow2_close(image);
    image_is_sound(fd);
    close(fd);
    close(base);
    free(model);
}
END_TEST

/* ---- Several threads ---- */

#define THREADS 4

struct writer {
    struct qcow2 *image;
    unsigned number;
    uint8_t *model;
};

/* Each has every fourth 4 KiB block: they meet in clusters, never in blocks. */
static void *writer_run(void *context)
{
    struct writer *writer = context;
    uint64_t state = writer->number + 1;
    uint8_t bytes[4096];

    for (unsigned step = 0; step < 400; step++) {
        uint64_t block =
            next_random(&state) % (DISK_BYTES / 4096 / THREADS) * THREADS + writer->number;
        if (next_random(&state) % 8 == 0) {
            memset(bytes, 0, sizeof(bytes));
            qcow2_write_zeroes(writer->image, block * 4096, 4096, true, false);
        } else {
            fill_random(bytes, sizeof(bytes), &state);
            image_write(writer->image, block * 4096, bytes, sizeof(bytes));
        }
        memcpy(writer->model + block * 4096, bytes, sizeof(bytes));
        if (step % 64 == 0) {
            qcow2_flush(writer->image);
        }
    }
    return NULL;
}

START_TEST(threads_meet_in_clusters)
{
    const struct qcow2_creation creation = {.size = DISK_BYTES, .cluster_bits = _i % 2 ? 12 : 16};
    uint8_t *model = calloc(1, DISK_BYTES);
    pthread_t threads[THREADS];
    struct writer writers[THREADS];
    int fd = _i < 2 ? image_make(&creation) : image_make_direct(&creation);
    if (fd < 0) {
        free(model);
        return;
    }
    struct qcow2 *image = image_open(fd, false);

    for (unsigned i = 0; i < THREADS; i++) {
        writers[i] = (struct writer){image, i, model};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, writer_run, &writers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    image_contains(image, model, DISK_BYTES);
    qcow2_close(image);
    image_is_sound(fd);
    close(fd);
    free(model);
}
END_TEST

/* ---- Space ---- */

START_TEST(what_is_discarded_is_used_again)
{
    const struct qcow2_creation creation = {.size = DISK_BYTES};
    uint8_t *bytes = malloc(DISK_BYTES);
    uint64_t state = 1;
    int fd = image_make(&creation);
    struct qcow2 *image = image_open(fd, false);
    int64_t most = 0;

    fill_random(bytes, DISK_BYTES, &state);
    for (unsigned i = 0; i < 10; i++) {
        ck_assert_int_eq(image_write(image, 0, bytes, DISK_BYTES), 0);
        ck_assert_int_eq(qcow2_discard(image, 0, DISK_BYTES), 0);
        ck_assert_int_eq(qcow2_flush(image), 0);
        ck_assert_int_eq(qcow2_flush(image), 0);
        int64_t size = qcow2_file_size(fd);
        most = i == 1 ? size : most;
        ck_assert(i < 2 || size <= most);
    }
    qcow2_close(image);
    image_is_sound(fd);
    close(fd);
    free(bytes);
}
END_TEST

START_TEST(a_large_disk_needs_little)
{
    /* Counts and tables grow with what is written, not with the size. */
    const struct qcow2_creation creation = {.size = UINT64_C(16) << 40,
                                            .cluster_bits = _i ? 21 : 16};
    uint8_t bytes[4096], found[4096];
    uint64_t state = 1;
    int fd = image_make(&creation);
    struct qcow2 *image = image_open(fd, false);

    for (unsigned i = 0; i < 40; i++) {
        uint64_t offset = next_random(&state) % (creation.size / 4096) * 4096;
        fill_random(bytes, sizeof(bytes), &state);
        ck_assert_int_eq(image_write(image, offset, bytes, sizeof(bytes)), 0);
        ck_assert_int_eq(image_read(image, offset, found, sizeof(found)), 0);
        ck_assert_mem_eq(bytes, found, sizeof(bytes));
    }
    qcow2_close(image);
    image_is_sound(fd);
    close(fd);
}
END_TEST

START_TEST(the_refcount_table_grows)
{
    /* 64 counts a block, 64 blocks a table cluster: 2 MiB of file each. */
    const struct qcow2_creation creation = {
        .size = 24 << 20, .cluster_bits = 9, .refcount_order = 6, .refcount_order_given = true};
    uint8_t *model = malloc(24 << 20);
    uint64_t state = 5;
    int fd = image_make(&creation);
    struct qcow2 *image = image_open(fd, false);
    unsigned before = qcow2_header(image)->refcount_table_clusters;

    fill_random(model, 24 << 20, &state);
    ck_assert_int_eq(image_write(image, 0, model, 24 << 20), 0);
    ck_assert_uint_gt(qcow2_header(image)->refcount_table_clusters, before);
    image_contains(image, model, 24 << 20);
    qcow2_close(image);
    image_is_sound(fd);
    image = image_open(fd, true);
    image_contains(image, model, 24 << 20);
    qcow2_close(image);
    close(fd);
    free(model);
}
END_TEST

START_TEST(impossible_images_are_not_made)
{
    static const struct qcow2_creation creations[] = {
        {.size = 1 << 20, .cluster_bits = 8},
        {.size = 1 << 20, .cluster_bits = 22},
        {.size = 1 << 20, .version = 4},
        {.size = UINT64_MAX},
        {.size = UINT64_C(1) << 40, .cluster_bits = 9},
        {.size = 1 << 20, .version = 2, .refcount_order = 3, .refcount_order_given = true},
        {.size = 1 << 20, .refcount_order = 7, .refcount_order_given = true},
        {.size = 1 << 20, .backing = ""},
    };
    struct error err;
    int fd = image_file();

    for (size_t i = 0; i < sizeof(creations) / sizeof(creations[0]); i++) {
        ck_assert_int_eq(qcow2_create(fd, "test", &creations[i], &err), -ERROR_CONFIG);
        ck_assert_int_eq(qcow2_file_size(fd), 0);
    }
    close(fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2");
    TCase *contents = tcase_create("contents"), *space = tcase_create("space");

    tcase_set_timeout(contents, 300);
    tcase_add_loop_test(contents, what_is_written_is_read, 0, VARIANTS);
    tcase_add_loop_test(contents, direct_access_reads_what_is_written, 0, VARIANTS);
    tcase_add_loop_test(contents, an_overlay_shows_what_is_below, 0, VARIANTS);
    tcase_add_loop_test(contents, a_disk_changes_its_size, 0, VARIANTS);
    tcase_add_loop_test(contents, what_was_larger_below_does_not_appear, 0, 2);
    tcase_add_loop_test(contents, threads_meet_in_clusters, 0, 4);
    tcase_set_timeout(space, 300);
    tcase_add_test(space, what_is_discarded_is_used_again);
    tcase_add_loop_test(space, a_large_disk_needs_little, 0, 2);
    tcase_add_test(space, the_refcount_table_grows);
    tcase_add_test(space, impossible_images_are_not_made);
    suite_add_tcase(suite, contents);
    suite_add_tcase(suite, space);
    return suite_run(suite);
}
