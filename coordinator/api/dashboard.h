/* The dashboard's page, embedded when built. */
#ifndef BRIGADE_COORDINATOR_API_DASHBOARD_H
#define BRIGADE_COORDINATOR_API_DASHBOARD_H

#include <stddef.h>

extern const unsigned char dashboard_html[];
extern const size_t dashboard_html_bytes;

#endif
