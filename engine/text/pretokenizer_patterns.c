/* The published pre-tokeniser patterns, by the name that GGUF files give them. Source: the tokenizer.json of the models
 * named; where a pattern uses class intersection (&&), which PCRE2 lacks, the same set is written by its complement. */
#include "engine/text/pretokenizer.h"

#include <string.h>

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define WORDS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define UPPER_NOT_HAN "[^\\p{Ll}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{C}\\p{Han}]"
#define LOWER_NOT_HAN "[^\\p{Lu}\\p{Lt}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{C}\\p{Han}]"
#define CASED(upper, lower, tail)                                                                                      \
    "[^\\r\\n\\p{L}\\p{N}]?" upper "*" lower "+" tail "|[^\\r\\n\\p{L}\\p{N}]?" upper "+" lower "*" tail
#define DEEPSEEK_V3                                                                                                    \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"                \
    "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES
/* Letters of DeepSeek LLM: the cased scripts, range by range. */
#define CASED_LETTERS                                                                                                  \
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}"   \
    "\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}"     \
    "\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}"       \
    "\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-"        \
    "\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}"\
    "\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-"\
    "\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}"\
    "\\x{2107}\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-" \
    "\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-" \
    "\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-"\
    "\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}"\
    "-\\x{FF5A}\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-"        \
    "\\x{10CF2}\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"
#define CJK_DEEPSEEK "[\\x{4E00}-\\x{9FA5}\\x{0800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"

static const struct pretokenizer_pattern patterns[] = {
    {.names = {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"},
     .ignore_merges = true,
     .adds_bos = true,
     .stages = {{RULE_MATCH,
                 CONTRACTIONS "|" WORDS "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES}}},
    {.names = {"dbrx", "smaug-bpe", "glm4", "chatglm-bpe"},
     .stages = {{RULE_MATCH,
                 CONTRACTIONS "|" WORDS "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES}}},
    {.names = {"qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez", "grok-2"},
     .stages = {{RULE_MATCH, CONTRACTIONS "|" WORDS "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES}}},
    {.names = {"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "gigachat", "a.x-4.0",
               "mellum", "jina-es", "jina-de", "jina-v1-en", "jina-v2-es", "jina-v2-de", "jina-v2-code"},
     .stages = {{RULE_MATCH, GPT2}}},
    {.names = {"roberta-bpe"}, .stages = {{RULE_MATCH, GPT2}}},
    {.names = {"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"},
     .stages = {{RULE_MATCH, "\\p{N}"}, {RULE_MATCH, GPT2}}},
    {.names = {"falcon"},
     .stages = {{RULE_MATCH, "[\\p{P}$+<=>^~|`]+"}, {RULE_MATCH, GPT2}, {RULE_MATCH, "[0-9][0-9][0-9]"}}},
    {.names = {"deepseek-llm"},
     .stages = {{RULE_MATCH, "[\\r\\n]"},
                {RULE_MATCH, "\\s?[" CASED_LETTERS "]+"},
                {RULE_MATCH,
                 "\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+"},
                {RULE_MATCH, "(?<!\\s)\\s+\\z"},
                {RULE_MATCH, CJK_DEEPSEEK},
                {RULE_MATCH, "\\p{N}+"}}},
    {.names = {"deepseek-coder"},
     .stages = {{RULE_MATCH, "[\\r\\n]"},
                {RULE_MATCH, "\\s?\\p{L}+"},
                {RULE_MATCH, "\\s?\\p{P}+"},
                {RULE_MATCH, CJK_DEEPSEEK},
                {RULE_MATCH, "\\p{N}"}}},
    {.names = {"deepseek-v3", "hunyuan-dense"},
     .stages = {{RULE_MATCH, "\\p{N}{1,3}"},
                {RULE_MATCH, "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{30FF}]+"},
                {RULE_MATCH, DEEPSEEK_V3}}},
    {.names = {"tekken"},
     .ignore_merges = true,
     .adds_bos = true,
     .stages = {{RULE_MATCH,
                 CASED(UPPER, LOWER, "") "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES}}},
    {.names = {"gpt-4o", "llama4", "minimax-m2"},
     .stages = {{RULE_MATCH,
                 CASED(UPPER, LOWER, CONTRACTIONS "?") "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES}}},
    {.names = {"kimi-k2"},
     .stages = {{RULE_MATCH, "\\p{Han}+|" CASED(UPPER_NOT_HAN, LOWER_NOT_HAN, CONTRACTIONS "?")
                             "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES}}},
    {.names = {"bailingmoe", "bailingmoe2", "llada-moe"},
     .stages = {{RULE_MATCH,
                 "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*"
                 "|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}}},
    {.names = {"seed-coder"},
     .stages = {{RULE_MATCH, CONTRACTIONS "|" WORDS "|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" SPACES}}},
    {.names = {"bloom", "gpt3-finnish", "poro-chat"},
     .stages = {{RULE_MATCH, " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+"}}},
    {.names = {"viking"},
     .stages = {{RULE_MATCH, " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+"},
                {RULE_MATCH, "\\p{N}"}}},
    {.names = {"chameleon"},
     .adds_bos = true,
     .stages = {{RULE_MATCH, "<sentinel:[0-9]+>"},
                {RULE_MATCH, "IMGIMG[A-I]{1,4}Z"},
                {RULE_MATCH, "[\\t\\n]|    |  "},
                {RULE_MATCH, "\\p{N}"},
                {RULE_MATCH, "[\\p{P}!-/:-@\\[-`{-~]"},
                {RULE_MATCH, GPT2}}},
    {.names = {"superbpe"}, .stages = {{RULE_DIGIT_GROUPS, "\\p{N}+"}}},
    {.names = {"afmoe"},
     .stages = {{RULE_DIGIT_GROUPS, "\\p{N}+"},
                {RULE_MATCH, "[\\x{4E00}-\\x{9FFF}\\x{3400}-\\x{4DBF}\\x{F900}-\\x{FAFF}\\x{3040}-\\x{309F}\\x{30A0}-"
                             "\\x{30FF}\\x{FF65}-\\x{FF9F}\\x{2F00}-\\x{2FDF}\\x{0E40}-\\x{0E7F}\\x{0E80}-\\x{0EFF}"
                             "\\x{1780}-\\x{17FF}\\x{1000}-\\x{109F}\\x{AA60}-\\x{AA7F}\\x{A9E0}-\\x{A9FF}\\x{AC00}-"
                             "\\x{D7AF}\\x{1100}-\\x{11FF}]+"},
                {RULE_MATCH, DEEPSEEK_V3}}},
    /* Files from before tokenizer.ggml.pre existed. */
    {.names = {"default", ""},
     .stages = {{RULE_MATCH, "[\\p{P}$+<=>^~|]+"}, {RULE_MATCH, GPT2}, {RULE_MATCH, "\\p{N}+"},
                {RULE_MATCH, "[0-9][0-9][0-9]"}}},
};

const struct pretokenizer_pattern *pretokenizer_at(size_t i)
{
    return i < sizeof patterns / sizeof *patterns ? &patterns[i] : NULL;
}

const struct pretokenizer_pattern *pretokenizer_find(const char *name)
{
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        for (size_t k = 0; patterns[i].names[k]; k++)
            if (!strcmp(patterns[i].names[k], name))
                return &patterns[i];
    return NULL;
}
