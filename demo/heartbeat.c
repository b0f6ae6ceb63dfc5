#include "heartbeat.h"

#include <string.h>

size_t answer_heartbeat(const unsigned char *record, size_t length, unsigned char *answer) {
    if (length < 2) return 0;
    size_t wanted = (size_t)record[0] << 8 | record[1];
    memcpy(answer, record + 2, wanted);
    return wanted;
}
