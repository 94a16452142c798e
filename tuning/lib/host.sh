# shellcheck shell=bash disable=SC2034,SC2004  # the facts are read by the other files; keyed arrays
# What this host is: CPUs, memory, cards, virtual machine, container, and who else tunes it.
# Reads below $ROOT only, changes nothing. Sourced by tuning/tune.

# First line of a file below ROOT, white space squeezed, in REPLY. Fails when it cannot be read.
read_line() { # PATH
  REPLY=
  [[ -r $ROOT/$1 && ! -d $ROOT/$1 ]] || return 1
  { IFS= read -r REPLY <"$ROOT/$1" || [[ -n $REPLY ]]; } 2>/dev/null || return 1
  local -a words
  read -ra words <<<"$REPLY" || true
  REPLY=${words[*]-}
}

# Path of a program in REPLY. With --root only DIR's own programs run, never the host's: they would act
# on the host.
find_program() { # NAME
  local dir
  REPLY=
  if [[ -z $ROOT ]]; then
    for dir in /usr/sbin /usr/bin /sbin /bin /usr/local/sbin /usr/local/bin; do
      [[ ! -x $dir/$1 ]] || { REPLY=$dir/$1; return 0; }
    done
    return 1
  fi
  for dir in usr/sbin usr/bin; do
    [[ ! -x $ROOT/$dir/$1 ]] || { REPLY=$ROOT/$dir/$1; return 0; }
  done
  return 1
}

run_program() { # NAME ARGUMENTS...
  local name=$1
  shift
  find_program "$name" || return 127
  TUNE_ROOT=$ROOT "$REPLY" "$@"
}

# "0-2,5" as words in REPLY: "0 1 2 5".
expand_cpus() { # LIST
  local part cpu
  local -a parts out=()
  IFS=, read -ra parts <<<"$1" || true
  for part in "${parts[@]}"; do
    if [[ $part =~ ^([0-9]+)-([0-9]+)$ ]] && ((BASH_REMATCH[2] < 65536)); then
      for ((cpu = BASH_REMATCH[1]; cpu <= BASH_REMATCH[2]; cpu++)); do out+=("$cpu"); done
    elif [[ $part =~ ^[0-9]+$ ]]; then
      out+=("$part")
    else
      return 1
    fi
  done
  REPLY=${out[*]-}
}

# CPUs of the memory node of a card, or all, or those of --cpus, as words in REPLY.
cpus_near() { # NIC
  if [[ -n $CPUS_GIVEN ]]; then
    expand_cpus "$CPUS_GIVEN"
    return
  fi
  if read_line "sys/class/net/$1/device/local_cpulist" && [[ -n $REPLY ]] && expand_cpus "$REPLY"; then
    return
  fi
  REPLY=$HOST_CPUS
}

detect_container() {
  HOST_CONTAINER=no
  if read_line run/systemd/container && [[ -n $REPLY ]]; then
    HOST_CONTAINER=$REPLY
  elif [[ -e $ROOT/.dockerenv ]]; then
    HOST_CONTAINER=docker
  elif [[ -e $ROOT/run/.containerenv ]]; then
    HOST_CONTAINER=podman
  fi
}

detect_machine() {
  HOST_MACHINE=physical
  local vendor='' product=''
  ! read_line sys/class/dmi/id/sys_vendor || vendor=$REPLY
  ! read_line sys/class/dmi/id/product_name || product=$REPLY
  case "$vendor $product" in
    *QEMU* | *KVM* | *"Amazon EC2"* | *"Google Compute"* | *VMware* | *"Virtual Machine"* | *Xen* | *Firecracker* | *Bochs*)
      HOST_MACHINE="virtual ($vendor $product)"
      [[ $product != *.metal* ]] || HOST_MACHINE="physical ($vendor $product)" ;;
    *)
      [[ ! -r $ROOT/proc/cpuinfo ]] || ! grep -qm1 '^flags.* hypervisor' "$ROOT/proc/cpuinfo" ||
        HOST_MACHINE="virtual (unnamed hypervisor)" ;;
  esac
}

# Cards with a device behind them, that are up; loopback, bridges and tunnels have none.
detect_nics() {
  local dir name driver
  HOST_NICS=()
  NIC_DRIVER=()
  for dir in "$ROOT"/sys/class/net/*; do
    name=${dir##*/}
    [[ -e $dir/device && $name =~ ^[A-Za-z0-9_.:-]+$ ]] || continue
    [[ -z $NIC_GIVEN || $NIC_GIVEN == "$name" ]] || continue
    if [[ -z $NIC_GIVEN ]] && read_line "sys/class/net/$name/operstate" && [[ $REPLY == down ]]; then
      continue
    fi
    driver=unknown
    [[ ! -e $dir/device/driver ]] || driver=$(basename "$(readlink -f "$dir/device/driver")")
    HOST_NICS+=("$name")
    NIC_DRIVER[$name]=$driver
  done
}

# Programs that set the same knobs behind our back, found by name.
detect_rivals() {
  local file name
  HOST_TUNED='' HOST_IRQBALANCE=no HOST_RINGCAST_PID=''
  for file in "$ROOT"/proc/[0-9]*/comm; do
    [[ -r $file ]] || continue
    name=
    IFS= read -r name <"$file" 2>/dev/null || true
    case $name in
      tuned) ! read_line etc/tuned/active_profile || HOST_TUNED=$REPLY ;;
      irqbalance) HOST_IRQBALANCE=yes ;;
      ringcast) file=${file%/comm} HOST_RINGCAST_PID=${file##*/} ;;
    esac
  done
  TUNED_SETS=()
  for name in $HOST_TUNED; do
    [[ $name =~ ^[A-Za-z0-9_.-]+$ ]] && read_tuned_profile "$name" 0
  done
  return 0
}

# The sysctl section of a tuned profile and of those it includes, into TUNED_SETS.
read_tuned_profile() { # NAME DEPTH
  local file='' dir line section='' key value
  ((${2} < 6)) || return 0
  for dir in etc/tuned/profiles etc/tuned usr/lib/tuned/profiles usr/lib/tuned; do
    [[ ! -r $ROOT/$dir/$1/tuned.conf ]] || { file=$ROOT/$dir/$1/tuned.conf; break; }
  done
  [[ -n $file ]] || return 0
  while IFS= read -r line || [[ -n $line ]]; do
    if [[ $line =~ ^\[(.*)\] ]]; then
      section=${BASH_REMATCH[1]}
    elif [[ $line =~ ^[[:space:]]*([^#=[:space:]]+)[[:space:]]*=[[:space:]]*(.*)$ ]]; then
      key=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]//\"/}
      if [[ $section == main && $key == include && $value =~ ^[A-Za-z0-9_.-]+$ ]]; then
        read_tuned_profile "$value" $(($2 + 1))
      elif [[ $section == sysctl ]]; then
        TUNED_SETS[$key]=$value
      fi
    fi
  done <"$file"
}

# A file that is read after ours at boot and names the key too, with its value, in REPLY.
set_later_at_boot() { # KEY
  local file name pattern
  pattern="^[[:space:]]*-?${1//./[./]}[[:space:]]*="
  for file in "$ROOT"/{etc,run,usr/local/lib,usr/lib}/sysctl.d/*.conf "$ROOT"/etc/sysctl.conf; do
    name=${file##*/}
    [[ -r $file && ($name == sysctl.conf || $name > 90-ringcast.conf) ]] || continue
    if REPLY=$(grep -Em1 "$pattern" "$file"); then
      REPLY="${file#"$ROOT"} says ${REPLY#"${REPLY%%[![:space:]]*}"} and is read after ours"
      return 0
    fi
  done
  return 1
}

detect_host() {
  local -a words
  local line
  HOST_KERNEL=unknown HOST_RAM_KIB=0 HOST_CPUS=0 HOST_NODES=1
  ! read_line proc/sys/kernel/osrelease || HOST_KERNEL=$REPLY
  if [[ -r $ROOT/proc/meminfo ]]; then
    while IFS= read -r line; do
      [[ ! $line =~ ^MemTotal:[[:space:]]*([0-9]+) ]] || { HOST_RAM_KIB=${BASH_REMATCH[1]}; break; }
    done <"$ROOT/proc/meminfo"
  fi
  ! { read_line sys/devices/system/cpu/online && expand_cpus "$REPLY"; } || HOST_CPUS=$REPLY
  read -ra words <<<"$HOST_CPUS"
  HOST_CPU_COUNT=${#words[@]}
  words=("$ROOT"/sys/devices/system/node/node[0-9]*)
  [[ ! -e ${words[0]-} ]] || HOST_NODES=${#words[@]}
  detect_container
  detect_machine
  detect_nics
  detect_rivals
}

# True when the kernel is at least MAJOR.MINOR.
kernel_at_least() { # MAJOR.MINOR
  [[ $HOST_KERNEL =~ ^([0-9]+)\.([0-9]+) ]] || return 1
  local major=${BASH_REMATCH[1]} minor=${BASH_REMATCH[2]}
  ((major > ${1%.*} || (major == ${1%.*} && minor >= ${1#*.})))
}
