/* Two functions that a patch replaces: it takes two stores. */

__declspec(dllexport) __declspec(noinline) int answer(int value) {
#ifdef FIXED
    return value + 1000;
#else
    return value + 1;
#endif
}

__declspec(dllexport) __declspec(noinline) int reply(int value) {
#ifdef FIXED
    return value * 1000;
#else
    return value * 3;
#endif
}
