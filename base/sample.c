/* Sorting by insertion and a mean. Owns nothing. */
#include "base/sample.h"

double sample_middle(double *values, size_t count)
{
    double sum = 0;
    size_t cut = count / 4;
    for (size_t i = 1; i < count; i++) {
        double v = values[i];
        size_t at = i;
        for (; at > 0 && values[at - 1] > v; at--)
            values[at] = values[at - 1];
        values[at] = v;
    }
    for (size_t i = cut; i < count - cut; i++)
        sum += values[i];
    return count ? sum / (double)(count - 2 * cut) : 0;
}
