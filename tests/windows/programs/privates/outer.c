/* The same in C, where they have one name. */

int tripled;
int in_cpp(int value);

__attribute__((noinline)) static int thrice(int value) {
    tripled++;
#ifdef FIXED
    if (value > 1000)
        return 3000;
#endif
    return value * 3;
}

__declspec(dllexport) int answer(int value) { return thrice(value) + in_cpp(value); }
