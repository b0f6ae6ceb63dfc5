/* What the start-up code of a C runtime brings to programs and libraries. The C library itself is
 * Windows' own (ucrtbase.dll, vcruntime140.dll). */
#include "include/stdio.h"

typedef void(__cdecl *Constructor)(void);
typedef int(__cdecl *Initializer)(void);

#pragma section(".CRT$XCA", read)
#pragma section(".CRT$XCZ", read)
#pragma section(".CRT$XIA", read)
#pragma section(".CRT$XIZ", read)
#pragma section(".CRT$XLA", read)
#pragma section(".CRT$XLZ", read)
#pragma section(".rdata$T", read)
__declspec(allocate(".CRT$XCA")) Constructor __xc_a[1] = {0};
__declspec(allocate(".CRT$XCZ")) Constructor __xc_z[1] = {0};
__declspec(allocate(".CRT$XIA")) Initializer __xi_a[1] = {0};
__declspec(allocate(".CRT$XIZ")) Initializer __xi_z[1] = {0};
__declspec(allocate(".CRT$XLA")) void *__xl_a = 0;
__declspec(allocate(".CRT$XLZ")) void *__xl_z = 0;

#pragma data_seg(".tls")
char _tls_start = 0;
#pragma data_seg(".tls$ZZZ")
char _tls_end = 0;
#pragma data_seg()
unsigned _tls_index = 0;

/* IMAGE_TLS_DIRECTORY64. */
__declspec(allocate(".rdata$T")) const struct {
    char *start, *end;
    unsigned *index;
    void *callbacks;
    unsigned zeros, characteristics;
} _tls_used = {&_tls_start, &_tls_end, &_tls_index, &__xl_a + 1, 0, 0};

/* What a compiler expects of code that it puts floating point into. */
int _fltused = 0x9875;

/* The table of std::type_info, which descriptions of thrown types begin with. */
static void nothing(void) {}
void *type_info[2] __asm__("??_7type_info@@6B@") = {(void *)nothing, (void *)nothing};

/* IMAGE_LOAD_CONFIG_DIRECTORY64 of current size; the linker puts it into the data directory. */
__declspec(align(8)) const unsigned char _load_config_used[0x140] = {0x40, 0x01};

void initialize(void) {
    for (Initializer *next = __xi_a; next < __xi_z; next++)
        if (*next)
            (*next)();
    for (Constructor *next = __xc_a; next < __xc_z; next++)
        if (*next)
            (*next)();
}

/* C code of libraries would tell of what it looks for; there is nobody to read it. */
FILE *stderr, *stdout;
int fflush(FILE *file) { return file != 0; }
int fprintf(FILE *file, const char *text, ...) { return file != 0 && *text; }
int fputc(int letter, FILE *file) { return file ? letter : 0; }
size_t fwrite(const void *bytes, size_t size, size_t count, FILE *file) {
    return bytes && size && file ? count : 0;
}
