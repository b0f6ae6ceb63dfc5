/* Rust's standard library takes chance from bcryptprimitives.dll, which Wine 8 does not have. */
__declspec(dllimport) unsigned char __stdcall SystemFunction036(void *, unsigned long);

__declspec(dllexport) int __stdcall ProcessPrng(unsigned char *bytes, unsigned long long size) {
    while (size) {
        unsigned long some = size > 0x10000 ? 0x10000 : (unsigned long)size;
        if (!SystemFunction036(bytes, some))
            return 0;
        bytes += some;
        size -= some;
    }
    return 1;
}

int __stdcall _DllMainCRTStartup(void *library, unsigned reason, void *reserved) {
    (void)library, (void)reason, (void)reserved;
    return 1;
}
