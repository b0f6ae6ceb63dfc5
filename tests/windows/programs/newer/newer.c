/* Functions that handle exceptions as newer Visual C++ has it. No other compiler writes its tables,
   so they stand here as bytes, of which each number is twice what it says. */

int cleaned, caught;
__declspec(dllexport) int get_cleaned(void) { return cleaned; }
__declspec(dllexport) int get_caught(void) { return caught; }

__declspec(noinline) int read_one(volatile int *from) { return *from; }
__declspec(noinline) int clean(int by) { return cleaned += by; }
__declspec(noinline) int catch_it(int what) { return caught += what; }

struct type {
    void *table, *spare;
    char name[8];
};
struct type type_of_int = {0, 0, ".H"}, type_of_long = {0, 0, ".J"};

#ifndef TYPE
#define TYPE type_of_int
#endif
/* How it catches: by reference. */
#ifndef ADJECTIVES
#define ADJECTIVES 8
#endif
/* Where the state begins in which it is caught. */
#ifndef FROM
#define FROM 1
#endif
/* Clean-ups, blocks, and that no other exceptions are asked about. */
#ifndef HEADER
#define HEADER 0x38
#endif
#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

int guess_it(volatile int *from), past(volatile int *from);

/* try { cleaner; try { read_one(from) } catch (int &) { catch_it } } */
#define CATCHING(name)                                                                             \
    __asm__(".text\n.def " #name "\n.scl 2\n.type 32\n.endef\n.globl " #name "\n" #name ":\n.seh_proc " #name "\nsubq $40, %rsp\n"           \
            ".seh_stackalloc 40\n.seh_endprologue\n" #name "_1: callq read_one\n" #name "_2: nop\n" \
            #name "_3: addq $40, %rsp\nretq\n"                                                     \
            ".seh_handler __CxxFrameHandler4, @unwind, @except\n.seh_handlerdata\n"                \
            ".long " #name "_info@IMGREL\n"                                                        \
            #name "_info: .byte " TEXT(HEADER) "\n.long " #name "_clean@IMGREL\n"                  \
            ".long " #name "_tries@IMGREL\n.long " #name "_places@IMGREL\n"                        \
            #name "_clean: .byte 4, (1 << 2 | 3) * 2\n.long clean@IMGREL\n.byte (5 << 2) * 2\n"    \
            #name "_tries: .byte 2, 2, 2, 4\n.long " #name "_catch@IMGREL\n"                       \
            #name "_catch: .byte 2, 0x13, " TEXT(ADJECTIVES) " * 2\n.long " TEXT(TYPE) "@IMGREL\n" \
            ".long catch_it@IMGREL\n.byte (" #name "_3 - " #name ") * 2\n"                         \
            #name "_places: .byte 4, (" #name "_" TEXT(FROM) " - " #name ") * 2, 4\n"              \
            ".byte (" #name "_3 - " #name "_" TEXT(FROM) ") * 2, 0\n"                              \
            ".text\n.seh_endproc\n");

/* The base handles exceptions somewhere, so that it imports what does so. */
CATCHING(guess_it)
__declspec(dllexport) int guess(volatile int *from) { return guess_it(from); }

#ifdef FIXED
CATCHING(past)
#else
#define past read_one
#endif

__declspec(dllexport) __declspec(noinline) int answer(volatile int *from) { return past(from); }
