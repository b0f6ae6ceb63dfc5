/* A program for Windows that loads a library and says what its functions answer, as often as it is
 * asked: `NAME NUMBER` in, the answer out, and whether the code that runs can be unwound. `FREE 0` has it
 * unload the library, and `LOAD 0` load it again: the answer is 1 if it is where it was. `PID 0` has it
 * tell its own number, and `STATE NUMBER` what is at so many times 64 KiB: 4096 where there is memory, 65536
 * where there is none. */

typedef int (*function)(int);
typedef unsigned long long u64;

#define FROM_KERNEL32 __declspec(dllimport)
FROM_KERNEL32 void *GetStdHandle(unsigned which);
FROM_KERNEL32 int ReadFile(void *file, void *to, unsigned size, unsigned *done, void *later);
FROM_KERNEL32 int WriteFile(void *file, const void *from, unsigned size, unsigned *done, void *later);
FROM_KERNEL32 char *GetCommandLineA(void);
FROM_KERNEL32 void *LoadLibraryA(const char *name);
FROM_KERNEL32 int FreeLibrary(void *library);
FROM_KERNEL32 unsigned GetCurrentProcessId(void);
FROM_KERNEL32 function GetProcAddress(void *library, const char *name);
FROM_KERNEL32 void *RtlLookupFunctionEntry(u64 at, u64 *image, void *history);
FROM_KERNEL32 void ExitProcess(unsigned code);
FROM_KERNEL32 u64 VirtualQuery(const void *at, void *found, u64 size);

static void *in, *out;
static char line[256];

static int read_line(void) {
    unsigned length = 0, done;
    while (length < sizeof line - 1) {
        if (!ReadFile(in, line + length, 1, &done, 0) || !done)
            return 0;
        if (line[length] == '\n')
            break;
        length++;
    }
    line[length] = 0;
    return 1;
}

static void tell(int value, int unwound) {
    char text[32];
    char *at = text + sizeof text;
    unsigned done, rest = value < 0 ? 0u - (unsigned)value : (unsigned)value;
    *--at = '\n';
    *--at = unwound ? '1' : '0';
    *--at = ' ';
    do
        *--at = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0)
        *--at = '-';
    WriteFile(out, at, (unsigned)(text + sizeof text - at), &done, 0);
}

/* As Windows has it: MEMORY_BASIC_INFORMATION. */
static int state(u64 at) {
    struct {
        u64 at, reserved_at;
        unsigned first_access, part;
        u64 size;
        unsigned state, access, type, end;
    } found = {0};
    VirtualQuery((const void *)(at << 16), &found, sizeof found);
    return (int)found.state;
}

/* Where the jumps at a function's entry lead. */
static u64 runs(const unsigned char *code) {
    for (;;) {
        if (code[0] == 0xeb)
            code += 2 + (signed char)code[1];
        else if (code[0] == 0xe9)
            code += 5 + *(const int *)(code + 1);
        else if (code[0] == 0xff && code[1] == 0x25)
            code = *(const unsigned char *const *)(code + 6 + *(const int *)(code + 2));
        else
            return (u64)code;
    }
}

/* Functions of the library that were asked for. */
static struct {
    char name[32];
    function found;
} known[8];
static unsigned used;

/* The loader is asked once for each: it may be at work, and then does not answer. */
static function find(void *library, const char *name) {
    for (unsigned one = 0; one < used; one++) {
        unsigned at = 0;
        while (name[at] && known[one].name[at] == name[at])
            at++;
        if (known[one].name[at] == name[at])
            return known[one].found;
    }
    function found = GetProcAddress(library, name);
    unsigned length = 0;
    while (name[length])
        length++;
    if (found && used < sizeof known / sizeof known[0] && length < sizeof known[0].name) {
        for (unsigned at = 0; at <= length; at++)
            ((volatile char *)known[used].name)[at] = name[at];
        known[used++].found = found;
    }
    return found;
}

void start(void) {
    in = GetStdHandle((unsigned)-10);
    out = GetStdHandle((unsigned)-11);
    char *name = GetCommandLineA();
    /* The last word, which has no space. */
    for (char *at = name; *at; at++)
        if (*at == ' ')
            name = at + 1;
    void *library = LoadLibraryA(name);
    if (!library)
        ExitProcess(2);
    void *first = library;
    while (read_line()) {
        char *number = line;
        while (*number && *number != ' ')
            number++;
        *number++ = 0;
        int negative = *number == '-', value = 0;
        for (number += negative; *number >= '0' && *number <= '9'; number++)
            value = value * 10 + *number - '0';
        if (line[0] >= 'A' && line[0] <= 'Z') {
            if (line[0] == 'F')
                used = 0, tell(FreeLibrary(library), 0);
            else if (line[0] == 'L')
                tell((library = LoadLibraryA(name)) == first, 0);
            else if (line[0] == 'S')
                tell(state((unsigned)value), 0);
            else
                tell((int)GetCurrentProcessId(), 0);
            continue;
        }
        function asked = find(library, line);
        if (!asked)
            ExitProcess(3);
        u64 image;
        int answer = asked(negative ? -value : value);
        tell(answer, RtlLookupFunctionEntry(runs((const unsigned char *)asked), &image, 0) != 0);
    }
    ExitProcess(0);
}
