//# compiler clang++
//# flags -std=c++20
//# refuse R-RESUME prices(int).resume
//# near accept

// One place more at which a coroutine waits, before another one. Its frame has the same layout, and a call that waits goes on
// behind the new place instead of the old one.
#include <coroutine>
#include <cstdio>

struct Task {
    struct promise_type {
        int value = 0;
        Task get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
        std::suspend_always initial_suspend() noexcept { return {}; }
        std::suspend_always final_suspend() noexcept { return {}; }
        void return_void() {}
        void unhandled_exception() {}
        std::suspend_always yield_value(int next) {
            value = next;
            return {};
        }
    };
    std::coroutine_handle<promise_type> handle;
};

__attribute__((noinline)) int step(int x) {
    __asm__ volatile("");
#ifdef NEAR
    return x + 8;
#else
    return x + 7;
#endif
}

__attribute__((noinline)) Task prices(int n) {
    for (int price = n;;) {
#ifdef FIXED
        co_yield price + 1;
#endif
        co_yield price;
        co_yield price * 2;
        price = step(price);
    }
}

int main(int argc, char **) {
    Task task = prices(argc);
    for (int i = 0; i < 5; i++) {
        task.handle.resume();
        std::printf("%d\n", task.handle.promise().value);
    }
    return 0;
}
