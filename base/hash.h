/* Small hashes: CRC-32 (the zlib polynomial) for showing that bits are equal, and the running token hash that every
 * stage keeps for a sequence so that a KV cache can prove which tokens it stands for. Neither is a secret's guard. */
#ifndef BRIGADE_BASE_HASH_H
#define BRIGADE_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32 of bytes; start with crc = 0 and feed the result back in to go on. */
uint32_t hash_crc32(uint32_t crc, const void *bytes, size_t n);

/* Hash of a sequence of tokens: start with HASH_TOKENS_START, add tokens one by one (64-bit finaliser of
 * Steele/Vigna's SplitMix over the running value xor token). */
#define HASH_TOKENS_START UINT64_C(0x6272696761646531)
uint64_t hash_token(uint64_t running, int32_t token);
uint64_t hash_tokens(uint64_t running, const int32_t *tokens, size_t n);

/* The SplitMix64 finaliser: a bijection that mixes well. */
uint64_t hash_mix64(uint64_t x);

#endif
