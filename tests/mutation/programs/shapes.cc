// What C++ puts into an image: virtual tables, exceptions with types and specifications,
// static constructors, thread-locals, jump tables, floating point constants.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#define APART __attribute__((noinline))

struct Shape {
    virtual ~Shape() = default;
    virtual double area() const = 0;
    virtual const char *name() const { return "a shape without a name"; }
};
struct Circle : Shape {
    double radius;
    explicit Circle(double r) : radius(r) {}
    double area() const override { return radius * radius * 3.14159; }
    const char *name() const override { return "circle"; }
};
struct Square : Shape {
    double side;
    explicit Square(double s) : side(s) {}
    double area() const override { return side * side; }
};

thread_local int depth = 7;
static int counter = 3;
static const char *const units[] = {"mm", "cm", "dm", "m", "km", "a unit that is not used"};
static double (*const operations[])(double, double) = {
    [](double a, double b) { return a + b; },
    [](double a, double b) { return a - b; },
    [](double a, double b) { return a * b; },
};
const unsigned char exported_table[16] = {1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 1, 2, 3};
std::vector<std::string> history{"first", "second entry that is too long to be short"};

APART int parse(const char *text, int mode) {
    ++depth;
    switch (mode) {
    case 0: return atoi(text);
    case 1: return std::stoi(text) * 2;
    case 2: throw std::runtime_error("mode two is broken");
    case 3: return static_cast<int>(strlen(text)) ^ 0x5a5a;
    case 4: throw mode;
    case 5: return text[0] == 'x' ? counter++ : counter--;
    case 6: history.push_back(text); return static_cast<int>(history.size());
    case 7: return exported_table[strlen(text) & 15];
    default: return -1;
    }
}

APART int careful(const char *text, int mode) {
    try {
        std::string copy(text);
        copy += units[static_cast<unsigned>(mode) % 5];
        return parse(copy.c_str(), mode);
    } catch (const std::runtime_error &error) {
        fprintf(stderr, "careful: %s\n", error.what());
        return 1;
    } catch (const std::exception &) {
        return 2;
    } catch (int number) {
        return number;
    } catch (...) {
        return 3;
    }
}

APART int silent(const char *text) noexcept {
    std::string copy(text);
    return parse((copy + "?").c_str(), 1);
}

APART int listed(const char *text) {
    static const int weights[] = {19, 3, 17, 5, 11, 7, 13, 2};
    static std::string last = "nothing yet";
    int sum = 0;
    for (int at = 0; text[at]; ++at)
        sum += weights[at & 7] * text[at];
    last = text;
    return sum + static_cast<int>(last.size());
}

APART const char *colour(unsigned number) {
    switch (number) {
    case 0: return "red";
    case 1: return "green";
    case 2: return "blue";
    case 3: return "yellow";
    case 4: return "black";
    case 5: return "white";
    default: return "no colour at all";
    }
}

int main(int count, char **words) {
    int sum = silent("12");
    Circle circle(count);
    Square square(count + 0.25);
    const Shape *shapes[] = {&circle, &square};
    for (int at = 1; at < count; ++at) {
        const Shape &shape = *shapes[at & 1];
        double area = operations[at % 3](shape.area(), 1.5);
        printf("%s %s %g %d\n", shape.name(), colour(static_cast<unsigned>(at)), area, depth);
        sum += careful(words[at], at) + listed(words[at]);
    }
    return sum & 0x7f;
}
