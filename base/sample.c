/* Sorting by insertion and a mean. Owns nothing. */
#include "base/sample.h"

double sample_usual(double *values, size_t count)
{
    double sum = 0;
    size_t used = count > 2 ? count - (count + 3) / 4 : count;
    for (size_t i = 1; i < count; i++) {
        double v = values[i];
        size_t at = i;
        for (; at > 0 && values[at - 1] > v; at--)
            values[at] = values[at - 1];
        values[at] = v;
    }
    for (size_t i = 0; i < used; i++)
        sum += values[i];
    return used ? sum / (double)used : 0;
}
