/* Tensor element types as GGUF numbers them, with the shape of one quantisation block of each.
 * Source: the GGUF/ggml type table (ggml.h, ggml-common.h, public specification). Pure data; any thread. */
#ifndef BRIGADE_ENGINE_QUANT_TYPES_H
#define BRIGADE_ENGINE_QUANT_TYPES_H

#include <stddef.h>
#include <stdint.h>

enum tensor_type {
    TYPE_F32 = 0,
    TYPE_F16 = 1,
    TYPE_Q4_0 = 2,
    TYPE_Q4_1 = 3,
    TYPE_Q5_0 = 6,
    TYPE_Q5_1 = 7,
    TYPE_Q8_0 = 8,
    TYPE_Q8_1 = 9,
    TYPE_Q2_K = 10,
    TYPE_Q3_K = 11,
    TYPE_Q4_K = 12,
    TYPE_Q5_K = 13,
    TYPE_Q6_K = 14,
    TYPE_Q8_K = 15,
    TYPE_IQ2_XXS = 16,
    TYPE_IQ2_XS = 17,
    TYPE_IQ3_XXS = 18,
    TYPE_IQ1_S = 19,
    TYPE_IQ4_NL = 20,
    TYPE_IQ3_S = 21,
    TYPE_IQ2_S = 22,
    TYPE_IQ4_XS = 23,
    TYPE_I8 = 24,
    TYPE_I16 = 25,
    TYPE_I32 = 26,
    TYPE_I64 = 27,
    TYPE_F64 = 28,
    TYPE_IQ1_M = 29,
    TYPE_BF16 = 30,
    TYPE_TQ1_0 = 34,
    TYPE_TQ2_0 = 35,
    TYPE_MXFP4 = 39,
    TYPE_COUNT = 40,
};

struct type_info {
    const char *name;      /* "Q4_0"; NULL for a number that is no type */
    uint32_t block_values; /* values in a block: 1, 32 or 256 */
    uint32_t block_bytes;
};

/* The row of the table, or NULL when `type` is not a type of the format. */
const struct type_info *type_info(uint32_t type);
/* "Q4_0" or "type 77": never NULL, for messages. */
const char *type_name(uint32_t type);
/* Type of a name, compared without case ("q8_0"), or -1. */
int type_parse(const char *name);

/* Bytes of a row of `values` values; 0 when values is no whole number of blocks, the type unknown, or it overflows. */
size_t type_row_bytes(uint32_t type, uint64_t values);

#endif
