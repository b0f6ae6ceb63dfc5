#pragma once
typedef long clock_t;
#define CLOCKS_PER_SEC 1000
clock_t clock(void);
