#!/usr/bin/env bash
# Sets up a real, windowed Blender for the end-to-end tests: Debian unstable's Blender in a folder of its
# own (a chroot), with a virtual screen, software OpenGL, a screenshot tool and a robot for mouse and keys.
# Nothing of it is installed on the machine itself, except debootstrap where that is missing.
#
#   packaging/setup_blender.sh [DIR]      default: ${XDG_CACHE_HOME:-~/.cache}/keytween/blender-window
# About 300 MB to fetch, 1.3 GB on disk, one to two minutes.
#
# Safe to run again: a finished folder is left as it is, an interrupted one goes on from its last finished
# step. All mounts live in a private mount namespace and vanish with this script, however it ends.
#
# Exit codes, so that a caller can name what it left out:
#   0   Blender is there and opens
#   2   wrong arguments
#   69  packages could not be fetched or installed: the network or the mirror; run it again
#   70  everything is installed, but Blender does not start
#   77  this machine cannot do it (not Linux, not root, no apt-get, no mount namespace); the reason is printed
set -euo pipefail
# debootstrap and chroot live where not every root looks.
PATH=$PATH:/usr/sbin:/sbin

readonly WRONG_USE=2 NO_PACKAGES=69 BLENDER_BROKEN=70 CANNOT_HERE=77
readonly SUITE=sid
# Blender's extension system imports cattrs, requests and zstandard; Debian's package does not ask for them.
# Blender's own Python, elsewhere, can make environments; Debian's needs python3-venv for that.
readonly PACKAGES=(
    blender python3-cattr python3-requests python3-venv python3-zstandard
    xvfb xauth libgl1-mesa-dri imagemagick xdotool
)

say() { printf 'setup_blender: %s\n' "$*"; }
stop() {
    local code=$1
    shift
    printf 'setup_blender: %s\n' "$*" >&2
    exit "$code"
}

usage() {
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//p}' "$0"
}

require_machine() {
    [[ $(uname -s) == Linux ]] || stop $CANNOT_HERE "needs Linux; this is $(uname -s)."
    case $(uname -m) in
    x86_64 | aarch64) ;;
    *) stop $CANNOT_HERE "needs an x86_64 or aarch64 processor; this is $(uname -m)." ;;
    esac
    [[ $EUID -eq 0 ]] || stop $CANNOT_HERE "needs root, for chroot and mounts: run it with sudo."
    unshare --mount true 2>/dev/null ||
        stop $CANNOT_HERE "this root may not make a mount namespace: give the container CAP_SYS_ADMIN."
}

require_debootstrap() {
    command -v debootstrap >/dev/null && return
    command -v apt-get >/dev/null ||
        stop $CANNOT_HERE "needs debootstrap, and there is no apt-get to install it with: install it first."
    say "installing debootstrap with apt-get"
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends \
        debootstrap debian-archive-keyring >/dev/null; } ||
        stop $NO_PACKAGES "debootstrap could not be installed: see apt-get's words above."
}

# debootstrap knows a mirror of its own; what this machine's apt uses comes first, because that one is
# known to be reachable from here. Only Debian's own archives qualify: the suite must be there.
mirrors() {
    if command -v apt-get >/dev/null; then
        apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
            sed -n 's/^Debian|Debian|//p' | sort -u
    fi
    echo default
}

# Bootstraps into a side folder and renames it, so that root/ is never half a system.
bootstrap() {
    local dir=$1 mirror
    for mirror in $(mirrors); do
        [[ $mirror == default ]] && mirror=''
        say "fetching a minimal Debian $SUITE (from ${mirror:-the default mirror})"
        rm -rf --one-file-system "$dir/root.part"
        if debootstrap --variant=minbase --include=ca-certificates "$SUITE" "$dir/root.part" \
            ${mirror:+"$mirror"} >"$dir/bootstrap.log" 2>&1; then
            mv "$dir/root.part" "$dir/root"
            return
        fi
        tail -n 3 "$dir/bootstrap.log" >&2
    done
    stop $NO_PACKAGES "debootstrap failed; its words are in $dir/bootstrap.log."
}

# Packages unpack faster without fsync and documentation, and none may start a service. The machine's
# proxy for apt, if there is one, holds inside too.
configure_root() {
    local root=$1
    cp -L /etc/resolv.conf /etc/hosts "$root/etc/" 2>/dev/null || true
    printf '%s\n' force-unsafe-io 'path-exclude=/usr/share/doc/*' 'path-exclude=/usr/share/man/*' \
        >"$root/etc/dpkg/dpkg.cfg.d/keytween"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod +x "$root/usr/sbin/policy-rc.d"
    apt-config dump --no-empty Acquire::http::Proxy Acquire::https::Proxy \
        >"$root/etc/apt/apt.conf.d/90keytween" 2>/dev/null || true
}

mount_root() {
    local root=$1
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
}

inside() {
    local root=$1
    shift
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
        chroot "$root" "$@"
}

# A mirror that is frozen or lags behind offers a signed but expired list. For a throw-away test system
# that is good enough; the signature is still checked.
refresh_lists() {
    local root=$1 words
    words=$(inside "$root" apt-get -q update 2>&1) && return
    printf '%s\n' "$words" >&2
    [[ $words == *'is expired'* ]] || return
    echo 'Acquire::Check-Valid-Until "false";' >"$root/etc/apt/apt.conf.d/91keytween"
    inside "$root" apt-get -q update
}

# Picks up an interrupted installation: dpkg first finishes what it had begun.
install_packages() {
    local dir=$1
    say "installing ${PACKAGES[*]}"
    {
        inside "$dir/root" dpkg --configure -a &&
            refresh_lists "$dir/root" &&
            inside "$dir/root" apt-get -qq -y --fix-broken install &&
            inside "$dir/root" apt-get -qq -y -o Acquire::Retries=3 install --no-install-recommends "${PACKAGES[@]}" &&
            inside "$dir/root" apt-get clean
    } >"$dir/install.log" 2>&1 || {
        tail -n 5 "$dir/install.log" >&2
        stop $NO_PACKAGES "the packages could not be installed; apt-get's words are in $dir/install.log."
    }
}

# The proof is a window: the version number alone would not show that the screen and OpenGL work.
check_window() {
    local dir=$1
    say "opening Blender once on a virtual screen"
    inside "$dir/root" env LIBGL_ALWAYS_SOFTWARE=1 timeout -k 5 120 \
        xvfb-run -a -s '-screen 0 1280x720x24' blender --factory-startup --gpu-backend opengl \
        --python-expr 'import bpy; bpy.app.timers.register(lambda: bpy.ops.wm.quit_blender() and None, first_interval=1)' \
        >"$dir/window.log" 2>&1 && ! grep -q '^Traceback' "$dir/window.log" || {
        tail -n 5 "$dir/window.log" >&2
        stop $BLENDER_BROKEN "Blender does not open as it should; its words are in $dir/window.log."
    }
}

build() {
    local dir=$1
    [[ -d $dir/root ]] || bootstrap "$dir"
    configure_root "$dir/root"
    mount_root "$dir/root"
    install_packages "$dir"
    check_window "$dir"
    {
        inside "$dir/root" blender --version 2>/dev/null | sed -n '1p'
        echo "${PACKAGES[*]}"
    } >"$dir/ready.part"
    mv "$dir/ready.part" "$dir/ready"
}

# Ready means: finished, and with the packages that this version of the script asks for.
is_ready() {
    [[ -f $1/ready && $(sed -n 2p "$1/ready") == "${PACKAGES[*]}" ]]
}

say_ready() {
    say "$(sed -n 1p "$1/ready") is ready in $1${2:-}"
}

main() {
    case ${1:-} in
    -h | --help) usage && exit 0 ;;
    -*) stop $WRONG_USE "there is no option $1; see --help." ;;
    esac
    [[ $# -le 1 ]] || stop $WRONG_USE "takes one folder, not $#."
    require_machine
    local dir
    dir=$(realpath -m -- "${1:-${XDG_CACHE_HOME:-$HOME/.cache}/keytween/blender-window}")
    if is_ready "$dir"; then
        say_ready "$dir"
        return
    fi
    require_debootstrap
    mkdir -p "$dir"
    # Of two runs at once, the second waits and then finds the folder ready.
    KEYTWEEN_SETUP_INSIDE=1 flock "$dir" unshare --mount --propagation private -- bash "$0" "$dir"
}

if [[ -n ${KEYTWEEN_SETUP_INSIDE:-} ]]; then
    started=$SECONDS
    is_ready "$1" || build "$1"
    say_ready "$1" " (took $((SECONDS - started)) s, $(du -sxm "$1" | cut -f1) MB)"
else
    main "$@"
fi
