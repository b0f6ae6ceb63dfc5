static int calls;
int limit = 7;
static const char *const names[] = {"none", "some", "all"};
__declspec(noinline) static int inner(int n) { calls++; return n * 3 + limit; }
__declspec(dllexport) const char *name(int n) { return names[n % 3]; }
__declspec(dllexport) int check(int n)
{
    switch (n) {
    case 1: return inner(2);
    case 2: return inner(5) + calls;
    case 3: return limit;
    case 4: return name(n)[0];
    case 5: return calls * 7;
    }
    return n < limit ? inner(n) : -1;
}
int _DllMainCRTStartup(void *a, int b, void *c) { (void)a, (void)b, (void)c; return 1; }
