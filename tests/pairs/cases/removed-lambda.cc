//# refuse R-REMOVED std::_Function_handler<void (), listen(int)::{lambda()#1}>::_M_invoke(std::_Any_data const&)
//# refuse R-REMOVED std::_Function_handler<void (), listen(int)::{lambda()#1}>::_M_manager(std::_Any_data&, std::_Any_data const&, std::_Manager_operation)
//# near accept
//# near hot std::_Function_handler<void (), listen(int)::{lambda()#2}>::_M_invoke(std::_Any_data const&)

// The fix no longer registers the first of two callbacks, which moves the number in the name of the second: live objects
// hold the address of the first, and the second is not what became of it. Near: the body of the second changed.
#include <cstdio>
#include <functional>
#include <vector>

static std::vector<std::function<void()>> callbacks;
__attribute__((noipa)) void add(std::function<void()> callback) { callbacks.push_back(callback); }
__attribute__((noipa)) void read_from(int fd) { std::printf("read %d\n", fd); }
__attribute__((noipa)) void tick(int times) { std::printf("tick %d\n", times); }

__attribute__((noinline)) void listen(int fd) {
#ifndef FIXED
    add([=] { read_from(fd); });
#endif
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
