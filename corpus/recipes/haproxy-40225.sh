# HAProxy 2.6: CVE-2023-40225.
#
# A request with an empty Content-Length is refused. Two functions change, their code only. Model: four threads, each
# with an event loop of its own.
package=haproxy
version=2.6.12-1+deb12u3
fix=(BUG-MAJOR-http-reject-any-empty-content-length-heade.patch)
outputs=(haproxy)

build() {
  make -j"$jobs" TARGET=linux-glibc CPU=generic CPU_CFLAGS="$cflags" DEBUG_CFLAGS= LDFLAGS=-pie \
    USE_OPENSSL=1 USE_PCRE2=1 USE_ZLIB=1 haproxy
}
