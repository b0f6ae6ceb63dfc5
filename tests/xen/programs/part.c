/* Other code for a part of a function that the compiler split off. It has room for no jump. LOOK is a
 * payload that tells what is where a call leads: the hook of its load runs while nothing else does. */
#include "payload.h"

#ifdef LOOK
extern int printk(const char *format, ...);
extern unsigned char place[] __attribute__((visibility("hidden")));

static void look(void)
{
    unsigned char *call = place + OFFSET;
    int distance = *(int *)(call + 1);
    unsigned char *code = call + 5 + distance;

    printk("call %#x leads to %02x %02x %02x\n", call[0], code[0], code[1], code[2]);
}
__attribute__((section(".livepatch.hooks.load"), used)) static void *hook = look;
#else
extern int printk(const char *format, ...);

static void __attribute__((used)) other_part(void)
{
    printk("the part\n");
}

FUNCTIONS functions_part = {
    .name = NAME,
    .new_addr = other_part,
    .new_size = 16,
    .old_size = OLD_SIZE,
    .version = 2,
};
#endif
