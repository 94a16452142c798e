# shellcheck shell=bash
# Sourced by tools/run and tools/test: installs Debian packages by name, only what is missing.
# The names are in tools/packages, by purpose.

# Prints the package names of the given sections.
package_names() {
  local section wanted
  for wanted in "$@"; do
    awk -v wanted="[$wanted]" '
      /^#/ || NF == 0 { next }
      /^\[/ { inside = ($0 == wanted); next }
      inside { print }
    ' "$(dirname "${BASH_SOURCE[0]}")/packages"
  done | sort -u
}

# Prints those of the given packages that are not installed.
packages_missing() {
  local name
  for name in "$@"; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || echo "$name"
  done
}

# Runs a command as root.
as_root() {
  if [[ $(id -u) == 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    echo "needs root (or sudo) for: $*" >&2
    return 1
  fi
}

# Installs what is missing of the given sections. A server among the packages is not started: while
# installing, policy-rc.d says no, unless this host already has a policy of its own.
install_packages() {
  local names missing policy=/usr/sbin/policy-rc.d status=0
  mapfile -t names < <(package_names "$@")
  mapfile -t missing < <(packages_missing "${names[@]}")
  ((${#missing[@]})) || return 0
  if ! command -v apt-get >/dev/null; then
    echo "not a Debian system: please install the equivalent of: ${missing[*]}" >&2
    return 0
  fi
  echo "installing: ${missing[*]}" >&2
  as_root apt-get update -qq >&2
  local own_policy=0
  if [[ ! -e $policy ]]; then
    own_policy=1
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
  fi
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 </dev/null || status=$?
  ((own_policy == 0)) || as_root rm -f "$policy"
  return "$status"
}
