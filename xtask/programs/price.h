/* What a number of things costs: the function that the benchmark replaces. */
#ifndef PRICE_H
#define PRICE_H

unsigned price(unsigned quantity);

#endif
