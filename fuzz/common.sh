# What the scripts of this folder share. Sourced.

targets() { sed -n '/^\[\[bin\]\]$/,/^path/s/^name = "\(.*\)"$/\1/p' Cargo.toml; }

# cargo-fuzz wants a nightly compiler; the pinned one does where it is told that it is one, or with BOOTSTRAP=1.
cargo_fuzz() {
    if [ "${BOOTSTRAP:-0}" = 0 ] && rustup toolchain list 2>/dev/null | grep -q nightly; then
        cargo +nightly fuzz "$@"
    else
        RUSTC_BOOTSTRAP=1 cargo fuzz "$@"
    fi
}

# What an input may cost: a length that a header can have, and then some.
max_len=${MAX_LEN:-8192}
limits=(-max_len="$max_len" -timeout=10 -rss_limit_mb=2048 -dict=cookie.dict -print_final_stats=1)
