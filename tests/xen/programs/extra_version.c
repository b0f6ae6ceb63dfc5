/* Another text for what follows the version's number: TEXT. With VARIABLE it counts its calls. */
#include "payload.h"

#define JOIN(a, b) a##b
#define NAMED(a, b) JOIN(a, b)

#ifdef VARIABLE
static u32 NAMED(calls_, TAG);
#endif

const char *NAMED(text_, TAG)(void)
{
#ifdef VARIABLE
    NAMED(calls_, TAG)++;
#endif
    return TEXT;
}

FUNCTIONS NAMED(functions_, TAG) = {
    .name = "xen_extra_version",
    .new_addr = NAMED(text_, TAG),
    .new_size = 16,
    .old_size = OLD_SIZE,
    .version = 2,
};
