/* A library that loads another one at the first call. */

__declspec(dllimport) unsigned __stdcall GetTickCount(void);
__declspec(dllimport) unsigned __stdcall GetCurrentThreadId(void);
__declspec(dllimport) unsigned __stdcall GetCurrentProcessId(void);

/* What a C runtime would bring: it finds the function, and fills its slot. */
void *__stdcall __delayLoadHelper2(const void *library, void **slot) { return 0; }

__declspec(dllexport) __declspec(noinline) int answer(int value) {
#ifdef FIXED
    value += 1000;
#endif
#ifdef MORE
    value += (int)GetCurrentProcessId();
#endif
    return value + (int)GetTickCount();
}
__declspec(dllexport) int who(void) {
#ifdef FEWER
    return 5;
#else
    return (int)GetCurrentThreadId();
#endif
}
