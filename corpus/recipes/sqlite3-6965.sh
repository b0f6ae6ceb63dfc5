# SQLite 3.40: CVE-2025-6965.
#
# A query may hold no more aggregate terms than there are columns for. The library is one big file, so the new lines
# move the line numbers that ninety-four functions report. Model: a driver with two threads, a database each.
package=sqlite3
version=3.40.1-2+deb12u2
fix=(42-CVE-2025-6965.patch)
outputs=(.libs/libsqlite3.so.0 sqlloop)
uses=(sqlloop.c loop.h)

build() {
  local features=(COLUMN_METADATA FTS3 RTREE)
  ./configure --disable-tcl --disable-readline --enable-threadsafe \
    CFLAGS="-O2 -g ${features[*]/#/-DSQLITE_ENABLE_}"
  make -j"$jobs" sqlite3.c libsqlite3.la
  gcc $cflags -Wall -Wextra -o sqlloop "$drivers/sqlloop.c" -I. -L.libs -lsqlite3 -lpthread -pie -Wl,-rpath,'$ORIGIN'
}
