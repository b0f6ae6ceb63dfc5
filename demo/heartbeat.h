/* What a peer may ask of the server, one record at a time. */
#pragma once
#include <stddef.h>

enum { RECORD_MAX = 1 << 16 };

/* Answers one heartbeat; returns the length of the answer. A heartbeat is two bytes of length, then that many bytes,
 * which are sent back to show that somebody is there. */
size_t answer_heartbeat(const unsigned char *record, size_t length, unsigned char *answer);
