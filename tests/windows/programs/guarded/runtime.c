/* What a C runtime would bring to an image that checks its calls through pointers. */

int __stdcall _DllMainCRTStartup(void *library, unsigned reason, void *reserved) {
    (void)library, (void)reason, (void)reserved;
    return 1;
}

int _fltused;
unsigned _tls_index;

/* What such calls go through before the loader writes its own check here. */
__attribute__((naked)) static void check(void) { __asm__("retq"); }
__attribute__((naked)) static void dispatch(void) { __asm__("jmpq *%rax"); }
__attribute__((section(".00cfg"))) void (*const __guard_check_icall_fptr)(void) = check;
__attribute__((section(".00cfg"))) void (*const __guard_dispatch_icall_fptr)(void) = dispatch;

/* Made by the linker; those that are numbers have them as their addresses. */
extern char __guard_fids_table[], __guard_fids_count[], __guard_flags[];

/* IMAGE_LOAD_CONFIG_DIRECTORY64 of current size, in words of 8 bytes. */
__attribute__((aligned(8))) const void *const _load_config_used[0x140 / 8] = {
    [0] = (void *)0x140,
    [0x70 / 8] = &__guard_check_icall_fptr,
    [0x78 / 8] = &__guard_dispatch_icall_fptr,
    [0x80 / 8] = __guard_fids_table,
    [0x88 / 8] = __guard_fids_count,
    [0x90 / 8] = __guard_flags,
};
