# hyper 0.14.9: CVE-2021-32714 and CVE-2021-32715.
#
# A length of "+5" is no length, and the size of a chunk may not overflow. Code only, but of Rust: generics and state
# machines, names that are hashes, and functions that move between the units that the compiler cuts a crate into.
# Model: four worker threads of tokio.
crate=hyper
base_version=0.14.9
fixed_version=0.14.10
outputs=(target/release/hyperd)
uses=(hyperd)

# Prints the folder of the crate in a version, as the registry has it.
crate_folder() {
  local folder=$work/sources/$crate-$1 fetch=$home/work/fetch
  if [[ ! -e $folder ]]; then
    rm -rf "$fetch"
    mkdir -p "$fetch/src" "$work/sources"
    printf '%s\n' '[package]' 'name = "fetch"' '[workspace]' '[dependencies]' "$crate = \"=$1\"" >"$fetch/Cargo.toml"
    touch "$fetch/src/lib.rs"
    (cd "$fetch" && cargo vendor) >"$log" 2>&1 || fail "cannot download $crate $1, see $log"
    # The crate is changed; cargo would find that it is not what the registry has.
    rm "$fetch/vendor/$crate/.cargo-checksum.json"
    mv "$fetch/vendor/$crate" "$folder"
  fi
  echo "$folder"
}

unpack() {
  tree=$home/work/tree
  say "fetching the source of $crate"
  local source
  source=$(crate_folder $base_version)
  rm -rf "$tree"
  cp -r "$drivers/hyperd" "$tree"
  cp -r "$source" "$tree/$crate"
}

# Two files of the fixed version, and the one call of the fix that is in a third: the rest of that file is new kinds of
# errors, and a whole new version would be more than the fix.
apply_fix() {
  [[ $variant == fixed ]] || return 0
  local source file
  source=$(crate_folder $fixed_version)
  for file in src/headers.rs src/proto/h1/decode.rs; do cp "$source/$file" "$tree/$crate/$file"; done
  (cd "$tree" && patch -p1 --no-backup-if-mismatch <"$drivers/hyperd/call.patch") >>"$log" 2>&1 ||
    fail "the fixed call does not apply, see $log"
}

build() {
  # Not in the tree, so that the crates that do not change are compiled once; cargo tells by times what is old.
  find $crate -name '*.rs' -exec touch {} +
  CARGO_TARGET_DIR=$home/work/target cargo build --release --locked -j"$jobs"
  mkdir -p target/release
  cp "$home/work/target/release/hyperd" target/release/
}
