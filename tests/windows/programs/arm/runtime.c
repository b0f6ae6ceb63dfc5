/* What a C runtime would bring. */

int __stdcall _DllMainCRTStartup(void *library, unsigned reason, void *reserved) {
    (void)library, (void)reason, (void)reserved;
    return 1;
}

/* What a compiler expects of code that it puts floating point into. */
int _fltused;

/* The load configuration of current size; the linker puts it into the data directory. */
__attribute__((aligned(8))) const unsigned char _load_config_used[0x140] = {0x40, 0x01};
