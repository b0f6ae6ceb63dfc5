# HAProxy 2.6: CVE-2023-45539.
#
# A request whose path holds a `#` is refused. Six commits: inline functions of headers appear, functions that read
# HTTP/2 headers get a parameter, and objects that the compiler numbers (`__initcb_7149`) are numbered anew. Model: four
# threads, each with an event loop of its own.
package=haproxy
version=2.6.12-1+deb12u3
fix=(
  MINOR-ist-add-new-function-ist_find_range-to-find-a-.patch
  MINOR-http-add-new-function-http_path_has_forbidden_.patch
  MINOR-h2-pass-accept-invalid-http-request-down-the-r.patch
  BUG-MINOR-h1-do-not-accept-as-part-of-the-URI-compon.patch
  BUG-MINOR-h2-reject-more-chars-from-the-path-pseudo-.patch
  BUG-MINOR-h3-reject-more-chars-from-the-path-pseudo-.patch
)
outputs=(haproxy)

build() {
  make -j"$jobs" TARGET=linux-glibc CPU=generic CPU_CFLAGS="$cflags" DEBUG_CFLAGS= LDFLAGS=-pie \
    USE_OPENSSL=1 USE_PCRE2=1 USE_ZLIB=1 haproxy
}
