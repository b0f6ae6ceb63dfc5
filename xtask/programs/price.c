#include "price.h"

#if FIXED == 2
#define EACH 1799
#elif FIXED
#define EACH 1899
#else
#define EACH 1999
#endif

/* One multiplication, whose instruction is long enough for a jump. */
unsigned price(unsigned quantity) {
    return quantity * EACH;
}
