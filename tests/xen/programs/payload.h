/* What every payload of the tests has: the two notes, and the form of `.livepatch.funcs`. */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

struct livepatch_func {
    const char *name;
    void *new_addr;
    void *old_addr;
    u32 new_size, old_size;
    u8 version, pad[39];
    u8 expect, expected[31];
};

#define FUNCTIONS \
    __attribute__((section(".livepatch.funcs"), used)) static struct livepatch_func

/* The build id of what it was made for: owner, description and type, as in any note. */
#define NOTE(section, id)                                                     \
    asm(".pushsection " section ", \"a\", @note\n"                            \
        ".balign 4\n.long 4, 2f - 1f, 3\n.asciz \"GNU\"\n"                    \
        "1: .byte " id "\n2: .balign 4\n.popsection")
NOTE(".livepatch.xen_depends", XEN_ID);
NOTE(".livepatch.depends", DEPENDS_ID);
