#include <stdexcept>
#include "shapes.h"

APART void check(int x) {
    if (x > 90) throw std::out_of_range("too large");
    if (x < -5) throw x;
}
