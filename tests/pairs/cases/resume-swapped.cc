//# compiler g++
//# flags -std=c++20 -fcoroutines
//# refuse R-RESUME _Z4workPZ4workiE14_Z4worki.Frame.actor
//# near accept

// Two places at which a coroutine waits are exchanged: the frame has the same fields, and a call that waits at the first one does the
// same work twice. Near: a number in the work itself.
#include <coroutine>
#include <cstdio>

struct Task {
    struct promise_type {
        Task get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
        std::suspend_always initial_suspend() noexcept { return {}; }
        std::suspend_always final_suspend() noexcept { return {}; }
        void return_void() {}
        void unhandled_exception() {}
    };
    std::coroutine_handle<promise_type> handle;
};

__attribute__((noipa)) std::suspend_always flush(int file) {
    std::printf("flush %d\n", file);
    return {};
}

__attribute__((noipa)) std::suspend_always end(int file) {
    std::printf("end %d\n", file);
    return {};
}

Task work(int file) {
#ifdef FIXED
    co_await end(file);
    co_await flush(file);
#elif defined(NEAR)
    co_await flush(file + 1);
    co_await end(file);
#else
    co_await flush(file);
    co_await end(file);
#endif
}

int main(int argc, char **) {
    Task task = work(argc);
    for (int i = 0; i < 3; i++)
        task.handle.resume();
    return 0;
}
