//#changes Circle::area() const|int best<long>(long const*, int)|risky(int)|total(Shape const&)
//
// C++: exceptions, templates, virtual functions, statics with guards, lambdas.
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>
#include "shapes.h"

APART Shape::~Shape() {}

struct Square : Shape {
    double side;
    explicit Square(double s) : side(s) {}
    APART double area() const override { return side * side; }
    APART const char *name() const override { return "square"; }
};

struct Circle : Shape {
    double radius;
    explicit Circle(double r) : radius(r) {}
#ifdef FIXED
    APART double area() const override { return radius < 0 ? 0 : 3.14159 * radius * radius; }
#else
    APART double area() const override { return 3.14159 * radius * radius; }
#endif
    APART const char *name() const override { return "circle"; }
};

template <typename T> APART int best(const T *all, int count) {
    int found = 0;
    for (int i = 1; i < count; i++)
        if (all[i] > all[found]) found = i;
    return found;
}

#ifdef FIXED
template <> APART int best<long>(const long *all, int count) {
    if (count <= 0) return -1;
    int found = 0;
    for (int i = 1; i < count; i++)
        if (all[i] >= all[found]) found = i;
    return found;
}
#else
template <> APART int best<long>(const long *all, int count) {
    int found = 0;
    for (int i = 1; i < count; i++)
        if (all[i] >= all[found]) found = i;
    return found;
}
#endif

// What is caught where changes too.
APART int risky(int x) {
    std::string text = "value " + std::to_string(x);
    try {
        check(x);
#ifdef FIXED
        check(x - 1);
#endif
        return (int)text.size();
    } catch (const std::out_of_range &error) {
        std::puts(error.what());
        return -1;
    } catch (int number) {
        return number;
    }
}

// Unchanged, with handlers and clean-up of its own.
APART int steady(int x) {
    std::vector<std::string> all;
    try {
        for (int i = 0; i < x; i++) all.push_back(std::string(3, 'a' + (i % 26)));
        check(x);
    } catch (const std::exception &) {
        all.clear();
    }
    return (int)all.size();
}

APART const std::string &greeting() {
    static const std::string text = "a text that is longer than any small buffer";
    return text;
}

APART double total(const Shape &shape) {
#ifdef FIXED
    return shape.area() + shape.name()[1];
#else
    return shape.area() + shape.name()[0];
#endif
}

int main(int count, char **) {
    std::unique_ptr<Shape> shapes[] = {std::make_unique<Square>(count),
                                       std::make_unique<Circle>(count)};
    double sum = 0;
    for (const auto &shape : shapes) sum += total(*shape);
    int few[] = {1, 5, 3};
    long many[] = {4, 2, 8, 8};
    auto twice = [&](int x) { return x + best(few, 3) + best(many, x + 3); };
    return (int)sum + twice(count) + risky(count) + steady(count) + (int)greeting().size();
}
