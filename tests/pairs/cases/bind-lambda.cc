//# accept
//# hot listen(int)|std::_Function_handler<void (), listen(int)::{lambda()#2}>::_M_manager(std::_Any_data&, std::_Any_data const&, std::_Manager_operation)
//# near accept
//# near hot std::_Function_handler<void (), listen(int)::{lambda()#2}>::_M_invoke(std::_Any_data const&)

// The fix registers one callback more in front of two others, which moves the numbers in the names of all of them: live
// objects hold the address of the first, which must go on doing what it does. Near: the body of the second changed.
#include <cstdio>
#include <functional>
#include <vector>

static std::vector<std::function<void()>> callbacks;
__attribute__((noipa)) void add(std::function<void()> callback) { callbacks.push_back(callback); }
__attribute__((noipa)) void read_from(int fd) { std::printf("read %d\n", fd); }
__attribute__((noipa)) void close_it(int fd) { std::printf("close %d\n", fd); }
__attribute__((noipa)) void tick(int times) { std::printf("tick %d\n", times); }

__attribute__((noinline)) void listen(int fd) {
#ifdef FIXED
    add([=] { close_it(fd); });
#endif
    add([=] { read_from(fd); });
#ifdef NEAR
    add([] { tick(3); });
#else
    add([] { tick(2); });
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    listen(argc);
    for (auto &callback : callbacks)
        callback();
    return 0;
}
