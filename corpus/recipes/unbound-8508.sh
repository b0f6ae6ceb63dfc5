# Unbound 1.17: CVE-2024-8508.
#
# An answer holds a limited number of compressed names. A counter goes down a chain of static functions, most of them
# inlined, so three functions change, two of them called from elsewhere. Model: two threads, each with an event loop.
package=unbound
version=1.17.1-2+deb12u4
fix=(CVE-2024-8508.patch)
outputs=(unbound)

build() {
  ./configure --with-pthreads --with-libevent --disable-shared --enable-static --disable-flto --disable-rpath \
    CFLAGS="$cflags" LDFLAGS=-pie
  make -j"$jobs" unbound
}
