/* Places inside functions and in data that are hooked. */

__declspec(dllexport) __declspec(noinline) int seven(int value) { return value * 7; }
__declspec(dllexport) __declspec(noinline) int other(int value) { return value * 8; }

/* A pointer that a hook changes: the number of calls of what it leads to is the loader's. */
__declspec(dllexport) int (*volatile pointer)(int) = seven;
__declspec(dllexport) __declspec(noinline) int through(int value) { return pointer(value); }

/* One instruction of six bytes with a number of two bytes in it. */
__declspec(dllexport) __declspec(noinline) int middle(int value) {
    __asm__ volatile("imull $1000, %%ecx, %%ecx" : "+c"(value));
    return value + 7;
}
