/* What the key 'A' does, compiled to the very code that Xen 4.17 has in `common/keyhandler.c`. The
 * fix counts, and uses all tables beside the code that Xen reads: with FIXED its text is FIXED. */

extern int printk(const char *format, ...);

/* `WARN()`: a trap that is a message. */
#define WARN() \
    asm volatile(".Lbug%=: ud2\n.pushsection .bug_frames.1,\"a\",@progbits\n.p2align 2\n" \
        ".Lfrm%=:\n.long (.Lbug%= - .Lfrm%=) + %c0\n.long (%c1 - .Lfrm%=) + %c2\n.popsection\n" \
        :: "i" ((__LINE__ >> 7) << 24), "i" (__FILE__), "i" ((__LINE__ & 127) << 24))
/* Another instruction for processors with a feature. */
#define ALTERNATIVE(old, new, feature) \
    "661:\n" old "\n662:\n.pushsection .altinstructions,\"a\",@progbits\n" \
    ".long 661b - .\n .long 663f - .\n .word " feature "\n" \
    ".byte 662b-661b\n .byte 664f-663f\n .byte 0\n .byte 0\n.popsection\n" \
    ".pushsection .altinstr_replacement,\"ax\",@progbits\n663:\n" new "\n664:\n.popsection\n"
/* An instruction that may fault, and what is done then. */
#define FAULT(insn, fixup) \
    "1: " insn "\n2:\n.pushsection .fixup,\"ax\",@progbits\n3: " fixup "\n jmp 2b\n.popsection\n" \
    ".pushsection .ex_table,\"a\",@progbits\n.balign 4\n.long 1b - .\n.long 3b - .\n.popsection\n"

static _Bool alt_key_handling;

/* The base has one number less: names of static variables move. */
int calls(void);
int calls(void)
{
    static int count;

    return ++count;
}

static void __attribute__((used, cf_check)) do_toggle_alt_key(unsigned char key)
{
#ifdef FIXED
    static unsigned int count;
    unsigned int kind, value;

    WARN();
    asm volatile(ALTERNATIVE("movl $1, %0", "movl $2, %0", "0") : "=r" (kind));
    asm volatile(FAULT("movl (%1), %0", "movl $14, %0") : "=r" (value) : "r" (1ul << 63));
    printk(FIXED ": count %u, kind %u, value %u\n", ++count, kind, value);
#endif
    alt_key_handling = !alt_key_handling;
    printk("'%c' pressed -> using %s key handling\n", key,
           alt_key_handling ? "alternative" : "normal");
}
