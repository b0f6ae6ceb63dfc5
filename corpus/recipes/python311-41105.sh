# Python 3.11: CVE-2023-41105.
#
# A path was cut off at its first NUL when it was normalised. A function is split in two and its caller changes, in a
# large interpreter that jumps through tables. Model: a server with a thread for each connection.
package=python3.11
version=3.11.2-6+deb12u8
fix=(CVE-2023-41105-path-truncation.patch)
outputs=(python lib pyserver.py)
uses=(pyserver.py)

build() {
  [[ -x configure ]] || autoreconf -fi
  touch configure
  # The prefix is never looked at: the server says with PYTHONHOME where the modules are. What LDFLAGS holds would link
  # the modules, too, and they are shared libraries; for the same reason they are compiled with one flag more.
  ./configure --prefix=/usr --without-ensurepip --disable-test-modules --without-static-libpython \
    CFLAGS= OPT="$cflags -DNDEBUG -fwrapv -Wall" LINKFORSHARED="-Xlinker -export-dynamic -pie"
  make -j"$jobs" python platform
  CFLAGS=-fPIC ./python -E setup.py -q build -j"$jobs"
  local modules=lib/python3.11
  mkdir -p "$modules/lib-dynload"
  tar c -C Lib --exclude=./test --exclude=./idlelib --exclude=./lib2to3 --exclude=__pycache__ . | tar x -C "$modules"
  cp build/lib.linux*/*.so "$modules/lib-dynload/"
  cp build/lib.linux*/_sysconfigdata*.py "$modules/"
  cp "$drivers/pyserver.py" .
}
