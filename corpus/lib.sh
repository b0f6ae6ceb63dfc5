# The steps that every recipe shares. A recipe sets
#
#   package, version   the Debian source package; a newer version will do as long as it still carries the fix
#   dsc_sha256         optional: the hash of that version's .dsc, by which it is still found when the lists name another
#   fix                the entries of debian/patches/series that make up the fix, in series order
#   outputs            what to keep, files or folders, relative to the source folder
#   build              a function that builds it, called in the source folder
#   uses               what it takes from the drivers' folder: files or folders; none where it is not set
#
# and may use $cflags, $jobs and $drivers.

# What programs look like where nobody prepared them for patching: optimised, position independent, nothing else.
cflags="-O2 -g -fPIE"
jobs=${CORPUS_JOBS:-2}
uses=()
dsc_sha256=

# Both halves of a case, and cases of one program, share nearly all of their objects. The key of a compiler cache holds
# the compiler, its arguments, the folder and the whole preprocessed text, so what it gives is what would be compiled.
export PATH=/usr/lib/ccache:$PATH CCACHE_DIR=$work/ccache

# Builds must not depend on the day, the language or a repository around the work folder (redis and memcached ask git
# for a version when they can find one).
export SOURCE_DATE_EPOCH=1700000000 LC_ALL=C.UTF-8 TZ=UTC DEB_BUILD_OPTIONS=
export GIT_CEILING_DIRECTORIES=$work

# Everything said goes to stderr: stdout belongs to functions that return text.
say() { echo "$case_name $variant: $*" >&2; }
fail() { echo "error: $case_name $variant: $*" >&2; exit 1; }

is_built() {
  [[ -f $out/BUILT ]] || return 1
  grep -qx "recipe $stamp" "$out/BUILT" || return 1
  local file
  for file in "${outputs[@]}"; do [[ -e $out/$(basename "$file") ]] || return 1; done
}

# A view of the system's own Debian sources that offers source packages, beside the system's lists. It lives in the work
# folder, so it needs no rights and changes nothing.
source_view() {
  local apt=$work/apt
  exec 8>"$work/apt.lock"
  flock 8
  export APT_CONFIG=$apt/apt.conf
  if [[ ! -e $apt/ready ]]; then
    mkdir -p "$apt/sources.d" "$apt/lists/partial" "$apt/cache/archives/partial"
    [[ ! -f /etc/apt/sources.list.d/debian.sources ]] ||
      sed 's/^Types:.*/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >"$apt/sources.d/source.sources"
    [[ ! -f /etc/apt/sources.list ]] ||
      sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >"$apt/sources.d/source.list"
    cat >"$apt/apt.conf" <<CONF
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$apt/sources.d";
Dir::State::lists "$apt/lists";
Dir::Cache "$apt/cache";
APT::Sandbox::User "root";
Acquire::Retries "3";
CONF
    say "reading the list of source packages"
    apt-get update -q >"$work/apt.log" 2>&1 || { tail -n 20 "$work/apt.log" >&2; fail "apt-get update failed"; }
    touch "$apt/ready"
  fi
}

# Prints the path of the package's .dsc file; downloads it when it is not there. Archives drop old versions, so any
# version is taken when the named one has gone; apply_fix says if that one has lost the fix.
download() {
  local folder=$work/sources/$package
  mkdir -p "$folder"
  if [[ ! -e $folder/complete ]]; then
    source_view
    (
      cd "$folder"
      apt-get source --download-only -y --only-source "$package=$version" ||
        apt-get source --download-only -y --only-source "$package" ||
        download_pinned
    ) >"$folder/log" 2>&1 || { tail -n 20 "$folder/log" >&2; fail "cannot download the source of $package"; }
    touch "$folder/complete"
  fi
  find "$folder" -name '*.dsc' | sort -V | tail -n 1
}

# An archive keeps a version for a while after its lists name the next one, and a mirror may have lists that are ahead of
# its files. The hash in the recipe takes the place of the lists' signature, and the .dsc holds those of the other files.
download_pinned() {
  [[ -n $dsc_sha256 ]] || return 1
  local folder dsc=${package}_$version.dsc sum name
  folder=$(apt-get --print-uris source --only-source "$package" 2>/dev/null | sed -n "s,^'\\(.*\\)/[^/]*\\.dsc' .*,\\1,p")
  fetch() { /usr/lib/apt/apt-helper download-file "$folder/${1//+/%2b}" "$1" "SHA256:$2"; }
  fetch "$dsc" "$dsc_sha256" || return 1
  while read -r sum _ name; do
    fetch "$name" "$sum" || return 1
  done < <(sed -n '/^Checksums-Sha256:/,/^[A-Z].*:$/s/^ \(.*\)$/\1/p' "$dsc")
}

unpack() {
  local dsc
  tree=$home/work/tree
  say "fetching the source of $package"
  dsc=$(download)
  rm -rf "$tree"
  # Signatures of the archive were checked by apt; --no-check only leaves out the uploader's own key.
  dpkg-source --no-check --skip-patches -x "$dsc" "$tree" >"$log" 2>&1 || fail "cannot unpack $dsc, see $log"
}

# Applies Debian's series: up to the first entry of the fix (base), or up to and including its last entry (fixed).
apply_fix() {
  local entry first=${fix[0]} last=${fix[-1]} found=
  while read -r entry _; do
    [[ -n $entry && $entry != \#* ]] || continue
    if [[ $entry == "$first" ]]; then
      found=yes
      [[ $variant == fixed ]] || break
    fi
    (cd "$tree" && patch -p1 -s -f --no-backup-if-mismatch <"debian/patches/$entry") >>"$log" 2>&1 ||
      fail "the patch $entry does not apply, see $log"
    [[ $entry != "$last" ]] || break
  done <"$tree/debian/patches/series"
  [[ -n $found ]] || fail "$package no longer carries $first as a patch of its own"
  # Patched files look newer than generated ones; equal times keep make from regenerating them in one half only.
  find "$tree" -newermt 2000-01-01 -print0 | xargs -0 touch -h -d "@$SOURCE_DATE_EPOCH"
}

# Copies the outputs beside the final place and moves them there whole, so that nobody ever sees half a build.
publish() {
  local file fresh=$home/work/$variant.new
  rm -rf "$fresh"
  mkdir -p "$fresh"
  for file in "${outputs[@]}"; do cp -rL "$tree/$file" "$fresh/"; done
  echo "recipe $stamp" >"$fresh/BUILT"
  rm -rf "$out"
  mv "$fresh" "$out"
}
