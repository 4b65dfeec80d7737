# Sourced by the scripts of this folder: names what is missing on this machine, with the command that installs it.

requirement_missing=0

missing() {
    printf 'missing: %s\n    %s\n' "$1" "$2" >&2
    requirement_missing=1
}

require() { # program, what needs it, command that installs it
    command -v "$1" >/dev/null 2>&1 || missing "\`$1\` ($2). Install it with:" "$3"
}

# The command for this machine's package manager.
c_compiler_command() {
    if command -v apt-get >/dev/null 2>&1; then echo "sudo apt-get install -y gcc libc6-dev"
    elif command -v dnf >/dev/null 2>&1; then echo "sudo dnf install -y gcc glibc-devel"
    elif command -v pacman >/dev/null 2>&1; then echo "sudo pacman -S --needed gcc"
    elif command -v zypper >/dev/null 2>&1; then echo "sudo zypper install -y gcc glibc-devel"
    elif command -v apk >/dev/null 2>&1; then echo "sudo apk add gcc musl-dev"
    else echo "your package manager; the package is usually called \`gcc\`"
    fi
}

check_machine() {
    case "$(uname -s)-$(uname -m)" in
        Linux-x86_64) ;;
        *) missing "Linux on x86-64; this is $(uname -s) on $(uname -m)." "Use such a machine or a virtual one." ;;
    esac
    local rustup="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    require rustup "installs the pinned Rust and its targets" "$rustup"
    require cargo "builds the host and the guests" "$rustup"
    require gcc "links, and compiles the few C files of dependencies" "$(c_compiler_command)"
    # Build scripts are linked by this name.
    require cc "links build scripts" "$(c_compiler_command)"
    check_go
    [ "$requirement_missing" = 0 ] || exit 1
}

# What guests/operators/prepare needs.
check_patch() {
    require patch "changes a dependency of the programs" "sudo apt-get install -y patch    # or your package manager"
    [ "$requirement_missing" = 0 ] || exit 1
}

# Go 1.21 and later fetch the version that devel/controlplane/go.mod asks for.
check_go() {
    local go="curl -fsSL https://go.dev/dl/go1.26.8.linux-amd64.tar.gz | sudo tar -C /usr/local -xz && export PATH=/usr/local/go/bin:\$PATH"
    require go "builds the control plane" "$go"
    command -v go >/dev/null 2>&1 || return 0
    local version minor
    version=$(GOTOOLCHAIN=local go env GOVERSION)
    minor=${version#go1.}
    minor=${minor%%.*}
    case "$minor" in
        '' | *[!0-9]*) return 0 ;; # a development version
    esac
    [ "$minor" -ge 21 ] || missing "Go 1.21 or newer; this is $version. Install it with:" "$go"
}

# rustup installs what rust-toolchain.toml lists when it installs the toolchain, but not when the toolchain was there before without the targets.
check_rust_targets() {
    local installed target
    rustup show active-toolchain >/dev/null 2>&1 || rustup toolchain install
    installed=$(rustup target list --installed)
    for target in x86_64-unknown-linux-musl wasm32-wasip2; do
        case $'\n'"$installed"$'\n' in
            *$'\n'"$target"$'\n'*) ;;
            *) rustup target add "$target" ;;
        esac
    done
}
