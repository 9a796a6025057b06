/* Recipes: which tensor of a model is written in which type. The mixes are those that published GGUF files use, so that
 * "Q4_K_M" means here what it means elsewhere.
 *
 * The rules, in order:
 * - Only weights of two and more dimensions are quantised. Norms, biases, expert gates (ffn_gate_inp), position
 *   embeddings and a few small convolutions keep the type they have.
 * - F32, F16 and BF16 give all others that type.
 * - The output head (or the token embedding where it serves as the head) is Q6_K, in a Q8_0 recipe Q8_0.
 * - K mixes raise some tensors: "M" mixes give attn_v and ffn_down of the first and last eighth of the blocks, and of
 *   each third block between, Q6_K, and attn_qkv one step more; "S" mixes and IQ4_NL raise the first blocks by one
 *   step. Models of 8 experts keep attn_k and attn_v in Q8_0; 80-block models with shared heads raise attn_v to Q5_K.
 * - A row that is no whole number of 256 falls back: Q4_K to Q5_0, Q5_K to Q5_1, Q6_K to Q8_0; a row that is no whole
 *   number of 32 to F16.
 * Source: the public practice of GGUF quantisation tools (llama-quantize, 2025). Pure functions; any thread. */
#ifndef BRIGADE_ENGINE_QUANT_RECIPE_H
#define BRIGADE_ENGINE_QUANT_RECIPE_H

#include <stddef.h>
#include <stdint.h>

#include "engine/files/gguf.h"

struct recipe {
    const char *name;   /* "Q4_K_M" */
    uint32_t type;      /* of most tensors */
    uint32_t file_type; /* general.file_type, as GGUF numbers them */
    const char *about;  /* half a line for people */
};

/* By name, compared without case; also "Q4_K" and "Q5_K" for their M mixes. NULL when there is none. */
const struct recipe *recipe_find(const char *name);
/* In the order people should see them; NULL behind the last. */
const struct recipe *recipe_at(size_t i);

/* The type of tensor t of model g under the recipe; t's own type where it is to stay as it is. */
uint32_t recipe_tensor_type(const struct recipe *recipe, const struct gguf *g, const struct gguf_tensor *t);

#endif
