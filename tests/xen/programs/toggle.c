/* Another thing for the key 'A' to do. A pointer leads to it, so it begins with `ENDBR64`. */
#include "payload.h"

extern int printk(const char *format, ...);

static void __attribute__((used, cf_check)) toggle_spliced(unsigned char key)
{
    printk("toggled %c\n", key);
}

FUNCTIONS functions_toggle = {
    .name = "common/keyhandler.c#do_toggle_alt_key",
    .new_addr = toggle_spliced,
    .new_size = 16,
    .old_size = OLD_SIZE,
    .version = 2,
};
