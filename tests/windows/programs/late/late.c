/* A library that loads another one at the first call. */

__declspec(dllimport) unsigned __stdcall GetTickCount(void);
__declspec(dllimport) unsigned __stdcall GetCurrentThreadId(void);

/* What a C runtime would bring: it finds the function, and fills its slot. */
void *__stdcall __delayLoadHelper2(const void *library, void **slot) { return 0; }

__declspec(dllexport) int answer(int value) { return value + (int)GetTickCount(); }
__declspec(dllexport) int who(void) { return (int)GetCurrentThreadId(); }
