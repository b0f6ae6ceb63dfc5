/* What a C runtime would bring. */

int __stdcall _DllMainCRTStartup(void *library, unsigned reason, void *reserved) {
    (void)library, (void)reason, (void)reserved;
    return 1;
}

/* What a compiler expects of code that it puts floating point into. */
int _fltused;

/* The loader writes the number of this image's block of thread-local variables here. */
unsigned _tls_index;

#ifdef THREAD
/* IMAGE_TLS_DIRECTORY64, and what is between its two ends. */
__attribute__((section(".tls"))) char _tls_start;
__attribute__((section(".tls$ZZZ"))) char _tls_end;
const struct {
    char *start, *end;
    unsigned *index;
    void *callbacks;
    unsigned zeros, characteristics;
} _tls_used = {&_tls_start, &_tls_end, &_tls_index, 0, 0, 0};
#endif

/* The load configuration of current size; the linker puts it into the data directory. */
#ifdef __i386__
__attribute__((aligned(8))) const unsigned char _load_config_used[0xc4] = {0xc4};
#else
__attribute__((aligned(8))) const unsigned char _load_config_used[0x140] = {0x40, 0x01};
#endif
