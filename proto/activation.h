/* Activation codecs: how a row of floats travels. f32 is exact and the default; f16 and bf16 round to nearest even;
 * q8 stores blocks of 32 values as an f32 scale (max|x|/127) and 32 signed bytes. Little-endian. Pure; any thread. */
#ifndef BRIGADE_PROTO_ACTIVATION_H
#define BRIGADE_PROTO_ACTIVATION_H

#include <stddef.h>
#include <stdint.h>

#include "proto/frame.h"

/* Bytes of `rows` rows of `width` values; 0 for CODEC_NONE, a bad codec, or overflow. */
size_t activation_bytes(enum frame_codec codec, uint32_t rows, uint32_t width);
void activation_encode(enum frame_codec codec, const float *values, uint32_t rows, uint32_t width, void *bytes);
/* bytes must hold activation_bytes(...); values rows·width floats. */
void activation_decode(enum frame_codec codec, const void *bytes, uint32_t rows, uint32_t width, float *values);
const char *codec_name(enum frame_codec codec);
int codec_parse(const char *name); /* or -1 */

#endif
