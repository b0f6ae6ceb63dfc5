/* A library that holds up every thread that begins, for as long as it is told to. */

#define DLL_THREAD_ATTACH 2

__declspec(dllimport) void __stdcall Sleep(unsigned long milliseconds);

static volatile int held;
__declspec(dllexport) int hold(int value) { return held = value; }

int __stdcall _DllMainCRTStartup(void *library, unsigned reason, void *reserved) {
    (void)library, (void)reserved;
    while (reason == DLL_THREAD_ATTACH && held)
        Sleep(10);
    return 1;
}

int _fltused;
unsigned _tls_index;

__attribute__((aligned(8))) const unsigned char _load_config_used[0x140] = {0x40, 0x01};
