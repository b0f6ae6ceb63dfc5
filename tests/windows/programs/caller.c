/* The same as crates/windows/examples/caller.rs, in C and without a runtime: threads that call a
 * library. A line on standard input has it print what they saw; the end of the input ends it. */
typedef unsigned long DWORD;
typedef void *HANDLE;
__declspec(dllimport) HANDLE __stdcall CreateThread(void *, unsigned long long, void *, void *, DWORD, DWORD *);
__declspec(dllimport) DWORD __stdcall GetCurrentProcessId(void);
__declspec(dllimport) void *__stdcall GetProcAddress(HANDLE, const char *);
__declspec(dllimport) HANDLE __stdcall GetStdHandle(DWORD);
__declspec(dllimport) HANDLE __stdcall LoadLibraryA(const char *);
__declspec(dllimport) char *__stdcall GetCommandLineA(void);
__declspec(dllimport) int __stdcall ReadFile(HANDLE, void *, DWORD, DWORD *, void *);
__declspec(dllimport) int __stdcall WriteFile(HANDLE, const void *, DWORD, DWORD *, void *);
__declspec(dllimport) void __stdcall Sleep(DWORD);
__declspec(dllimport) DWORD __stdcall WaitForSingleObject(HANDLE, DWORD);

enum { THREADS = 4 };
typedef int (*Function)(int);
static Function count, weigh;
static volatile int end;
static long long calls, wrong, added[3];

static DWORD __stdcall call(void *unused) {
    (void)unused;
    for (int n = 0; !end; n = (n + 1) % 1000) {
        int first = count(n) - 16 * n, second = weigh(n) - 16 * n;
        if (first < 0 || first > 2 || second < 0 || second > 1)
            __atomic_fetch_add(&wrong, 1, 5);
        else
            __atomic_fetch_add(&added[first], 1, 5);
        __atomic_fetch_add(&calls, 1, 5);
        if (n == 999)
            Sleep(1);
    }
    return 0;
}

static char line[256];
static int length;
static void text(const char *words) {
    while (*words)
        line[length++] = *words++;
}
static void number(long long value) {
    char digits[20];
    int size = 0;
    do
        digits[size++] = '0' + value % 10;
    while (value /= 10);
    line[length++] = ' ';
    while (size)
        line[length++] = digits[--size];
}
static void print(void) {
    DWORD done;
    line[length++] = '\n';
    WriteFile(GetStdHandle(-11), line, length, &done, 0);
    length = 0;
}
static void tell(void) {
    text("calls"), number(calls), text(" added");
    for (int i = 0; i < 3; i++)
        number(added[i]);
    text(" wrong"), number(wrong), print();
}

int main(void) {
    HANDLE threads[THREADS];
    char *path = GetCommandLineA(), *last = path, input[64];
    for (; *path; path++)
        if (*path == ' ')
            last = path + 1;
    HANDLE library = LoadLibraryA(last);
    if (!library)
        return 1;
    count = (Function)GetProcAddress(library, "count");
    weigh = (Function)GetProcAddress(library, "weigh");
    for (int i = 0; i < THREADS; i++)
        threads[i] = CreateThread(0, 0, (void *)call, 0, 0, 0);
    text("ready"), number(GetCurrentProcessId()), print();
    for (DWORD done; ReadFile(GetStdHandle(-10), input, sizeof input, &done, 0) && done;)
        tell();
    end = 1;
    for (int i = 0; i < THREADS; i++)
        WaitForSingleObject(threads[i], 10000);
    tell();
    text("counted");
    for (int i = 0; i < 3; i++) {
        static const char *const names[] = {"get_counted", "get_weighed", "get_helped"};
        number((unsigned)((Function)GetProcAddress(library, names[i]))(0));
    }
    print();
    return 0;
}
