/* The loop over a model's tensors: declare them all, then convert each in pieces of rows, shared out to threads that
 * live for one piece. Each row's result depends on that row only, so the number of threads changes nothing.
 * Owns its piece buffers and the writer; never touches the source but to read. */
#include "engine/quant/quantize_model.h"

#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "base/memory.h"
#include "engine/files/gguf_writer.h"
#include "engine/quant/dequantize.h"
#include "engine/quant/quantize.h"

#define PIECE_VALUES (2u << 20) /* a piece is this many values, or one row when that is more */
#define THREADS_MAX 256

/* Rows [first, first + rows) of a piece, for one thread. */
struct share {
    uint32_t from, to;
    const unsigned char *in; /* at the first row */
    float *floats;
    unsigned char *out;
    uint64_t rows, columns;
    uint64_t bad_row; /* the first with a value that is not finite; rows when there is none */
};

static void *convert(void *context)
{
    struct share *s = context;
    size_t in_bytes = type_row_bytes(s->from, s->columns), out_bytes = type_row_bytes(s->to, s->columns);
    s->bad_row = s->rows;
    for (uint64_t row = 0; row < s->rows; row++) {
        dequantize_row(s->from, s->in + row * in_bytes, s->floats, s->columns);
        for (uint64_t i = 0; i < s->columns; i++)
            if (!isfinite(s->floats[i])) {
                s->bad_row = row;
                return NULL;
            }
        quantize_row(s->to, s->floats, s->out + row * out_bytes, s->columns);
    }
    return NULL;
}

/* What one tensor after the other is converted with. */
struct job {
    const struct gguf *in;
    struct gguf_writer *writer;
    uint32_t *types; /* of every tensor of in */
    int threads;
    float *floats;      /* a row for each thread */
    unsigned char *out; /* a piece's results */
    int (*progress)(void *context, const struct quantize_progress *p);
    void *context;
    struct quantize_progress at;
    struct error *err;
};

/* Converts `rows` rows from row `first` on into job->out. */
static int convert_piece(struct job *job, const struct gguf_tensor *t, uint32_t to, uint64_t first, uint64_t rows)
{
    struct share shares[THREADS_MAX];
    pthread_t ids[THREADS_MAX];
    uint64_t columns = t->shape[0];
    size_t in_bytes = type_row_bytes(t->type, columns), out_bytes = type_row_bytes(to, columns);
    int used = rows < (uint64_t)job->threads ? (int)rows : job->threads, started = 1;
    for (int i = 0; i < used; i++) {
        uint64_t begin = rows * (uint64_t)i / (uint64_t)used, end = rows * ((uint64_t)i + 1) / (uint64_t)used;
        shares[i] = (struct share){
            .from = t->type,
            .to = to,
            .in = (const unsigned char *)t->data + (first + begin) * in_bytes,
            .floats = job->floats + (uint64_t)i * columns,
            .out = job->out + begin * out_bytes,
            .rows = end - begin,
            .columns = columns,
        };
    }
    while (started < used && !pthread_create(&ids[started], NULL, convert, &shares[started]))
        started++;
    convert(&shares[0]);
    for (int i = started; i < used; i++) /* what no thread could be had for */
        convert(&shares[i]);
    for (int i = 1; i < started; i++)
        pthread_join(ids[i], NULL);
    for (int i = 0; i < used; i++)
        if (shares[i].bad_row < shares[i].rows) {
            uint64_t row = first + rows * (uint64_t)i / (uint64_t)used + shares[i].bad_row;
            return error_set(job->err, ERR_FORMAT,
                             "%s: row %llu of tensor '%s' holds a value that is not finite; "
                             "the model is damaged, fetch it again",
                             gguf_file_path(job->in, t->file), (unsigned long long)row, t->name);
        }
    return 0;
}

static int report(struct job *job)
{
    if (job->progress && job->progress(job->context, &job->at))
        return error_set(job->err, ERR_CANCELLED, "quantising was stopped; nothing was written");
    return 0;
}

static int write_tensor(struct job *job, size_t index)
{
    const struct gguf_tensor *t = gguf_tensor_at(job->in, index);
    uint32_t to = job->types[index];
    uint64_t columns = t->shape[0], rows = t->shape[1] * t->shape[2] * t->shape[3];
    uint64_t piece = PIECE_VALUES / columns ? PIECE_VALUES / columns : 1;
    size_t in_bytes = type_row_bytes(t->type, columns), out_bytes = type_row_bytes(to, columns);
    int rc = 0;
    job->at.tensor = t;
    job->at.type = to;
    job->at.index = index;
    gguf_advise(job->in, t, true);
    for (uint64_t first = 0; first < rows && !rc; first += piece) {
        uint64_t now = rows - first < piece ? rows - first : piece;
        if ((rc = report(job)))
            break;
        if (to == t->type) {
            rc = gguf_writer_data(job->writer, (const char *)t->data + first * in_bytes, now * in_bytes, job->err);
        } else {
            rc = convert_piece(job, t, to, first, now);
            if (!rc)
                rc = gguf_writer_data(job->writer, job->out, now * out_bytes, job->err);
        }
        job->at.done_values += now * columns;
    }
    gguf_advise(job->in, t, false);
    return rc;
}

static bool is_float(uint32_t type)
{
    return type == TYPE_F32 || type == TYPE_F16 || type == TYPE_BF16 || type == TYPE_F64;
}

/* Floats become anything; quantised weights may only be widened into floats. */
static int check_source(const struct gguf *in, const struct gguf_tensor *t, uint32_t to, struct error *err)
{
    if (is_float(t->type) || is_float(to))
        return 0;
    return error_set(err, ERR_UNSUPPORTED,
                     "%s: tensor '%s' is %s already, and quantising twice loses quality; "
                     "start from the F32, F16 or BF16 file",
                     gguf_file_path(in, t->file), t->name, type_name(t->type));
}

/* Declares keys and tensors, and finds the largest buffers needed. */
static int declare(struct job *job, const struct recipe *recipe, struct quantize_result *result, uint64_t *row_values,
                   uint64_t *piece_bytes)
{
    int rc = gguf_writer_copy_keys(job->writer, job->in, job->err);
    if (!rc)
        rc = gguf_writer_set_u32(job->writer, "general.quantization_version", 2, job->err);
    if (!rc)
        rc = gguf_writer_set_u32(job->writer, "general.file_type", recipe->file_type, job->err);
    for (size_t i = 0; i < job->at.count && !rc; i++) {
        const struct gguf_tensor *t = gguf_tensor_at(job->in, i);
        uint32_t to = recipe_tensor_type(recipe, job->in, t);
        if (t->type == TYPE_MXFP4 && !is_float(to))
            to = t->type;
        uint64_t columns = t->shape[0], rows = t->shape[1] * t->shape[2] * t->shape[3];
        job->types[i] = to;
        if (to != t->type) {
            if ((rc = check_source(job->in, t, to, job->err)))
                break;
            uint64_t piece = PIECE_VALUES / columns ? PIECE_VALUES / columns : 1;
            uint64_t bytes = (rows < piece ? rows : piece) * type_row_bytes(to, columns);
            *piece_bytes = bytes > *piece_bytes ? bytes : *piece_bytes;
            *row_values = columns > *row_values ? columns : *row_values;
        } else {
            result->kept++;
        }
        rc = gguf_writer_add_tensor(job->writer, t->name, to, t->dims, t->shape, job->err);
        result->parameters += columns * rows;
        result->tensor_bytes += type_row_bytes(to, columns) * rows;
    }
    job->at.values = result->parameters;
    result->bytes = gguf_writer_bytes(job->writer);
    result->bits_per_weight = result->parameters ? 8.0 * (double)result->tensor_bytes / (double)result->parameters : 0;
    return rc;
}

int quantize_model(const struct gguf *in, const char *out_path, const struct recipe *recipe, int threads,
                   int (*progress)(void *context, const struct quantize_progress *p), void *context,
                   struct quantize_result *result, struct error *err)
{
    struct job job = {.in = in,
                      .threads = threads < 1             ? 1
                                 : threads > THREADS_MAX ? THREADS_MAX
                                                         : threads,
                      .progress = progress,
                      .context = context,
                      .at.count = gguf_tensor_count(in),
                      .err = err};
    struct quantize_result made = {0};
    uint64_t row_values = 0, piece_bytes = 0;
    int rc = job.at.count ? gguf_writer_open(out_path, &job.writer, err)
                          : error_set(err, ERR_UNSUPPORTED,
                                      "%s: the file holds no tensors, only a vocabulary; "
                                      "there is nothing to quantise",
                                      gguf_path(in));
    if (rc)
        return rc;
    job.types = mem_zalloc(job.at.count, sizeof *job.types);
    if (!job.types) {
        rc = error_set(err, ERR_NOMEM, "%s: out of memory while quantising", gguf_path(in));
        goto done;
    }
    rc = declare(&job, recipe, &made, &row_values, &piece_bytes);
    if (rc)
        goto done;
    job.floats = mem_zalloc((size_t)job.threads, row_values * sizeof *job.floats);
    job.out = mem_alloc(piece_bytes);
    if (!job.floats || !job.out) {
        rc = error_set(err, ERR_NOMEM, "%s: out of memory while quantising", gguf_path(in));
        goto done;
    }
    rc = gguf_writer_begin(job.writer, err);
    for (size_t i = 0; i < job.at.count && !rc; i++)
        rc = write_tensor(&job, i);
    if (!rc)
        rc = gguf_writer_finish(job.writer, err);
    if (!rc && result)
        *result = made;
done:
    gguf_writer_close(job.writer);
    mem_free(job.types);
    mem_free(job.floats);
    mem_free(job.out);
    return rc;
}
