/* Which tensor serves which purpose, and whether each is what the architecture says: present, of the right shape, of a
 * type the kernels know, and none too many. Reads the directory only, never a weight. Any thread. */
#include <stdio.h>
#include <string.h>

#include "engine/model/model_internal.h"

static const struct gguf_tensor *find(const struct model *m, uint32_t block, enum slot slot)
{
    char name[160];
    snprintf(name, sizeof name, "blk.%u.%s", block, slots[slot].name);
    return gguf_tensor_find(m->g, name);
}

/* Of an either-or, the side this block has: the second when any tensor that only it names is there. */
static uint64_t choose_side(const struct model *m, uint32_t block, const uint64_t either[2])
{
    for (int slot = 0; slot < SLOTS; slot++)
        if ((either[1] & ~either[0]) & SLOT(slot) && find(m, block, slot))
            return either[1];
    return either[0];
}

static int check(const struct model *m, uint32_t block, const struct slot_info *info, const struct gguf_tensor *t,
                 struct error *err)
{
    uint64_t want[3] = {shape_size(&m->shape, block, info->cols), 1, 1};
    if (info->kind != SLOT_VECTOR)
        want[1] = shape_size(&m->shape, block, info->rows);
    if (info->kind == SLOT_STACK)
        want[2] = shape_size(&m->shape, block, info->depth);
    for (int d = 0; d < 4; d++)
        if (t->shape[d] != (d < 3 ? want[d] : 1))
            return error_set(err, ERR_FORMAT,
                             "%s: tensor %s is %llu x %llu x %llu, but metadata asks for %llu x %llu x %llu",
                             gguf_path(m->g), t->name, (unsigned long long)t->shape[0], (unsigned long long)t->shape[1],
                             (unsigned long long)t->shape[2], (unsigned long long)want[0], (unsigned long long)want[1],
                             (unsigned long long)want[2]);
    if (!matrix_supported(t->type, (uint32_t)want[0]))
        return error_set(err, ERR_UNSUPPORTED, "%s: tensor %s has type %s with %llu columns, which no kernel computes",
                         gguf_path(m->g), t->name, type_name(t->type), (unsigned long long)want[0]);
    return 0;
}

static int missing(const struct model *m, const char *name, struct error *err)
{
    return error_set(err, ERR_FORMAT, "%s: tensor %s is missing, which every %s model has; the file is incomplete",
                     gguf_path(m->g), name, m->shape.arch->name);
}

static uint64_t allowed_in(const struct model *m, uint32_t block, uint64_t *required)
{
    const struct architecture *a = m->shape.arch;
    *required = a->attention | (m->shape.block[block].mixture ? a->experts : a->dense);
    for (int i = 0; i < 2; i++)
        if (a->either[i][0])
            *required |= choose_side(m, block, a->either[i]);
    uint64_t allowed = *required | a->optional;
    if (m->shape.block[block].mixture)
        allowed &= ~(SLOT(FFN_GATE_BIAS) | SLOT(FFN_UP_BIAS) | SLOT(FFN_DOWN_BIAS));
    else
        allowed &= ~(SLOT(SHARED_GATE) | SLOT(SHARED_UP) | SLOT(SHARED_DOWN) | SLOT(ROUTER_CHOICE_BIAS));
    return allowed;
}

static int resolve_block(struct model *m, uint32_t block, size_t *found, struct error *err)
{
    uint64_t required, allowed = allowed_in(m, block, &required);
    struct block_tensors *b = &m->block[block];
    for (int slot = 0; slot < SLOTS; slot++) {
        if (!(allowed & SLOT(slot)))
            continue;
        const struct gguf_tensor *t = find(m, block, slot);
        if (!t) {
            if (required & SLOT(slot)) {
                char name[160];
                snprintf(name, sizeof name, "blk.%u.%s", block, slots[slot].name);
                return missing(m, name, err);
            }
            continue;
        }
        int failed = check(m, block, &slots[slot], t, err);
        if (failed)
            return failed;
        b->slot[slot] = t;
        ++*found;
    }
    m->shape.block[block].absorbed = b->slot[ATTN_K_B] != NULL;
    uint64_t shared = SLOT(SHARED_GATE) | SLOT(SHARED_UP) | SLOT(SHARED_DOWN);
    if (b->slot[SHARED_GATE] || b->slot[SHARED_UP] || b->slot[SHARED_DOWN])
        for (int slot = 0; slot < SLOTS; slot++)
            if (shared & SLOT(slot) && !b->slot[slot])
                return error_set(err, ERR_FORMAT, "%s: block %u has a part of its shared experts, but no %s",
                                 gguf_path(m->g), block, slots[slot].name);
    return 0;
}

/* The tensor that no purpose claims, with the nearest name that one would. */
static int refuse_unknown(const struct model *m, struct error *err)
{
    for (size_t i = 0; i < gguf_tensor_count(m->g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(m->g, i);
        unsigned block = 0;
        int at = 0;
        const char *rest = t->name;
        bool in_block = sscanf(t->name, "blk.%5u.%n", &block, &at) == 1 && at > 0;
        bool known = false;
        const char *nearest = "";
        uint32_t best = UINT32_MAX;
        if (in_block && block < m->shape.blocks) {
            uint64_t required, allowed = allowed_in(m, block, &required);
            rest += at;
            for (int slot = 0; slot < SLOTS; slot++) {
                if (!(allowed & SLOT(slot)))
                    continue;
                known = known || m->block[block].slot[slot] == t;
                uint32_t d = edit_distance(rest, slots[slot].name);
                if (d < best) {
                    best = d;
                    nearest = slots[slot].name;
                }
            }
        } else if (!in_block) {
            for (int slot = 0; slot < GLOBAL_SLOTS; slot++) {
                known = known || m->global[slot] == t;
                uint32_t d = edit_distance(t->name, global_slots[slot].name);
                if ((m->shape.arch->globals | m->shape.arch->optional_globals) & SLOT(slot) && d < best) {
                    best = d;
                    nearest = global_slots[slot].name;
                }
            }
        }
        if (in_block && block >= m->shape.blocks && block - m->shape.blocks < m->shape.extra_blocks)
            continue;
        if (!known && in_block && block >= m->shape.blocks)
            return error_set(err, ERR_FORMAT, "%s: tensor %s belongs to block %u, but the model has %u",
                             gguf_path(m->g), t->name, block, m->shape.blocks);
        if (!known)
            return error_set(err, ERR_UNSUPPORTED, "%s: tensor %s is none that %s computes with; the nearest: %s%.*s%s",
                             gguf_path(m->g), t->name, m->shape.arch->name, "", in_block ? at : 0, t->name, nearest);
    }
    return 0;
}

int tensors_resolve(struct model *m, struct error *err)
{
    const struct architecture *a = m->shape.arch;
    size_t found = 0;
    int failed;
    for (int slot = 0; slot < GLOBAL_SLOTS; slot++) {
        if (!((a->globals | a->optional_globals) & SLOT(slot)))
            continue;
        const struct gguf_tensor *t = gguf_tensor_find(m->g, global_slots[slot].name);
        if (!t) {
            if (a->globals & SLOT(slot))
                return missing(m, global_slots[slot].name, err);
            continue;
        }
        if ((failed = check(m, 0, &global_slots[slot], t, err)) < 0)
            return failed;
        m->global[slot] = t;
        found++;
    }
    if (!m->global[ROPE_LONG] != !m->global[ROPE_SHORT])
        return missing(m, global_slots[m->global[ROPE_LONG] ? ROPE_SHORT : ROPE_LONG].name, err);
    for (uint32_t b = 0; b < m->shape.blocks; b++)
        if ((failed = resolve_block(m, b, &found, err)) < 0)
            return failed;
    return found == gguf_tensor_count(m->g) ? 0 : refuse_unknown(m, err);
}
