# Redis 7.0: CVE-2025-21605.
#
# A client that has not logged in gets a small output buffer. One function changes; the new lines move the line numbers
# that six others report, and one of these six is the main loop of a thread, which never returns. Model: an event loop,
# threads for reading and writing, threads for background work.
package=redis
version=5:7.0.15-1~deb12u10
fix=(0001-Limiting-output-buffer-for-unauthenticated-client-CV.patch)
outputs=(src/redis-server src/redis-cli)

build() {
  make -C src -j"$jobs" MALLOC=libc OPTIMIZATION=-O2 REDIS_CFLAGS="$cflags" REDIS_LDFLAGS=-pie redis-server redis-cli
}
