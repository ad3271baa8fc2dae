# The parts that the scripts of this folder share. Sourced, in this folder.

. ../.ci/install.sh
[ "${BOOTSTRAP:-0}" = 1 ] || need_nightly
need_tool cargo-fuzz

targets() { sed -n '/^\[\[bin\]\]$/,/^path/s/^name = "\(.*\)"$/\1/p' Cargo.toml; }

# cargo-fuzz takes the pinned compiler with BOOTSTRAP=1, which tells it that it is a nightly one.
cargo_fuzz() {
    if [ "${BOOTSTRAP:-0}" = 0 ]; then
        cargo +nightly fuzz "$@"
    else
        RUSTC_BOOTSTRAP=1 cargo fuzz "$@"
    fi
}

# Without a sanitizer a target runs two to forty times as many inputs in the same time. The crate has no unsafe code; long
# runs, which ask for `address`, look at the code below it.
sanitizer=${SANITIZER:-none}
build=(--features libfuzzer --sanitizer "$sanitizer" --target-dir "$PWD/target/$sanitizer")

# The limits of an input: a length that a header can have, and then some. The time tells what hangs from what is slow on a busy
# machine.
max_len=${MAX_LEN:-8192}
limits=(-max_len="$max_len" -timeout=60 -rss_limit_mb=2048 -dict=cookie.dict -print_final_stats=1)
