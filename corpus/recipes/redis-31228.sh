# Redis 7.0: CVE-2024-31227, CVE-2024-31228 and CVE-2024-31449.
#
# Glob patterns get a limit of recursion. Three files change; a static function that calls itself gets a parameter.
# Model: an event loop, threads for reading and writing, threads for background work.
package=redis
version=5:7.0.15-1~deb12u10
fix=(0001-Apply-security-fixes-for-CVEs-1113.patch)
outputs=(src/redis-server src/redis-cli)

build() {
  # One of the fixes is in the Lua that comes along, which is built without debug data unless it is told so.
  LUA_CFLAGS=-g make -C src -j"$jobs" MALLOC=libc OPTIMIZATION=-O2 REDIS_CFLAGS="$cflags" REDIS_LDFLAGS=-pie redis-server redis-cli
}
