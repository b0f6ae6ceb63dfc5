#pragma once
/* A header of the compiler names it. */
typedef struct { unsigned __int64 registers[32]; } jmp_buf[1];
