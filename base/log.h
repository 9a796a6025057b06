/* Logging to stderr: one line an event, `BRIGADE_LOG=error|warn|info|debug` (default warn for brigade, info for
 * brigade-worker, set with log_set_default). Lines never hold prompts, generated text or key material. Any thread. */
#ifndef BRIGADE_BASE_LOG_H
#define BRIGADE_BASE_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Level used when BRIGADE_LOG is unset or unknown, and the program name that starts each line. Call once, before threads. */
void log_set_default(const char *program, enum log_level level);
int log_enabled(enum log_level level);
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
