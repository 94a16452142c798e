# shellcheck shell=bash disable=SC2034  # the table is read by the other files
# The data file, and the judgement of one value: does it suffice, and if not, what is set instead.
# Rules: min (more suffices), max (less suffices), exact (any of a|b; the first is set), triple (three
# minimums), range (a wider one suffices), mask (a CPU mask). Nothing already larger is made smaller
# but under `max`, which bounds a delay. Sourced by tuning/tune.

readonly PROFILES='edge-10g edge-100g latency container dev'
readonly GROUPS_ALL='sysctl nic irq cpu limits boot'

# Reads knobs.tsv into the arrays K_*, with the values of one profile in K_value.
load_knobs() { # FILE PROFILE
  local line column
  local -a field
  K_key=() K_group=() K_need=() K_rule=() K_gate=() K_cap=() K_value=()
  K_why=() K_effect=() K_source=() K_undo=() K_hurts=()
  case $2 in
    edge-10g) column=6 ;; edge-100g) column=7 ;; latency) column=8 ;; container) column=9 ;; dev) column=10 ;;
    *) return 1 ;;
  esac
  while IFS= read -r line; do
    # Tab is white space to read, which would swallow empty fields; there are none, the test says so.
    IFS=$'\t' read -ra field <<<"$line"
    ((${#field[@]} == 16)) || fail_usage "knobs.tsv: ${#field[@]} fields in: $line"
    [[ ${field[0]} != key ]] || continue
    K_key+=("${field[0]}") K_group+=("${field[1]}") K_need+=("${field[2]}") K_rule+=("${field[3]}")
    K_gate+=("${field[4]}") K_cap+=("${field[5]}") K_value+=("${field[column]}")
    K_why+=("${field[11]}") K_effect+=("${field[12]}") K_source+=("${field[13]}")
    K_undo+=("${field[14]}") K_hurts+=("${field[15]}")
  done <"$1"
}

# A number written with a suffix of systemd, or infinity, as digits in REPLY.
to_digits() { # TEXT
  local number=$1 factor=1
  case $number in
    infinity | unlimited) REPLY=999999999999999999999999; return 0 ;;
    *K) factor=1024 ;; *M) factor=1048576 ;; *G) factor=1073741824 ;; *T) factor=1099511627776 ;;
  esac
  ((factor == 1)) || number=$((${number%[KMGT]} * factor))
  [[ $number =~ ^-?[0-9]+(\.[0-9]+)?$ ]] || return 1
  REPLY=$number
}

# a >= b. Numbers of the kernel may exceed those of the shell, so digits are compared.
at_least() { # A B
  local a=$1 b=$2
  to_digits "$a" && a=$REPLY && to_digits "$b" && b=$REPLY || return 1
  if [[ $a == *.* || $b == *.* ]]; then
    ((${a%.*} > ${b%.*} || (${a%.*} == ${b%.*} && ${a#*.} >= ${b#*.})))
  elif [[ $a == -* || $b == -* ]]; then
    ((a >= b))
  elif ((${#a} != ${#b})); then
    ((${#a} > ${#b}))
  else
    # shellcheck disable=SC2071  # equally long digits compare as text
    [[ ! $a < $b ]]
  fi
}

# A CPU mask without its separators and leading zeros, in REPLY.
plain_mask() { # MASK
  REPLY=${1//,/}
  REPLY=${REPLY#"${REPLY%%[!0]*}"}
  REPLY=${REPLY:-0}
}

# The mask of these CPUs in the kernel's form, in REPLY.
mask_of_cpus() { # CPU...
  local cpu group last=0
  local -a words=(0)
  for cpu in "$@"; do
    group=$((cpu / 32))
    while ((last < group)); do words[++last]=0; done
    words[group]=$((words[group] | 1 << (cpu % 32)))
  done
  REPLY=$(printf '%x' "${words[last]}")
  for ((group = last - 1; group >= 0; group--)); do REPLY+=$(printf ',%08x' "${words[group]}"); done
}

# True when the current value suffices; otherwise the value to set is in REPLY. Fails with 2 when the
# current value is none that the rule understands.
suffices() { # RULE CURRENT WANTED
  local rule=$1 wanted=$3 choice index enough=1
  local -a have want
  read -ra have <<<"$2"
  read -ra want <<<"$3"
  REPLY=$wanted
  case $rule in
    min | max)
      [[ $2 != unset ]] || return 1
      to_digits "$2" || return 2
      REPLY=$wanted
      if [[ $rule == min ]]; then at_least "$2" "$wanted" && return 0; else at_least "$wanted" "$2" && return 0; fi
      REPLY=$wanted
      return 1 ;;
    exact)
      while IFS= read -r choice; do [[ $2 != "$choice" ]] || return 0; done <<<"${wanted//|/$'\n'}"
      REPLY=${wanted%%|*}
      return 1 ;;
    triple)
      ((${#have[@]} == 3)) || return 2
      for index in 0 1 2; do
        if at_least "${have[index]}" "${want[index]}"; then want[index]=${have[index]}; else enough=0; fi
      done ;;
    range)
      ((${#have[@]} == 2)) || return 2
      if at_least "${want[0]}" "${have[0]}"; then want[0]=${have[0]}; else enough=0; fi
      if at_least "${have[1]}" "${want[1]}"; then want[1]=${have[1]}; else enough=0; fi ;;
    mask)
      plain_mask "$2"
      choice=$REPLY
      plain_mask "$wanted"
      [[ $choice != "$REPLY" ]] || return 0
      REPLY=$wanted
      return 1 ;;
  esac
  REPLY=${want[*]}
  ((enough))
}

# A value of the table as it is for this host, in REPLY: N%p is a share of memory in pages, N%k in
# kilobytes; BYTES@PERMILLE bounds the last number by the memory it may cost. A note is in REPLY_NOTE.
value_for_host() { # VALUE CAP
  local word limit index
  local -a out=() words
  REPLY_NOTE=
  read -ra words <<<"$1"
  for word in "${words[@]}"; do
    case $word in
      *%p) word=$((HOST_RAM_KIB * 1024 * ${word%\%p} / 100 / PAGE_BYTES)) ;;
      *%k) word=$((HOST_RAM_KIB * ${word%\%k} / 100)) ;;
    esac
    out+=("$word")
  done
  if [[ $2 != - ]] && ((HOST_RAM_KIB > 0)); then
    limit=$((HOST_RAM_KIB * 1024 * ${2#*@} / 1000 / ${2%@*}))
    for index in "${!out[@]}"; do
      ((out[index] > limit)) || continue
      out[index]=$limit
      REPLY_NOTE="bounded by $((HOST_RAM_KIB / 1024)) MiB of memory"
    done
  fi
  REPLY=${out[*]}
}

# True when the knob concerns this host; otherwise the reason is in REPLY.
gate_open() { # GATE KEY
  local gate
  for gate in ${1//,/ }; do
    case $gate in
      host) [[ $HOST_CONTAINER == no ]] || { REPLY="belongs to the host, not to a container"; return 1; } ;;
      bare) [[ $HOST_MACHINE == physical* ]] || { REPLY="not in a virtual machine"; return 1; } ;;
      numa) ((HOST_NODES > 1)) || { REPLY="one memory node only"; return 1; } ;;
      conntrack) [[ -e $ROOT/proc/sys/net/netfilter/nf_conntrack_max ]] ||
        { REPLY="connections are not tracked here"; return 1; } ;;
      kernel*) kernel_at_least "${gate#kernel>=}" || { REPLY="needs kernel ${gate#kernel>=}"; return 1; } ;;
      cc=*) { read_line proc/sys/net/ipv4/tcp_available_congestion_control && [[ " $REPLY " == *" ${gate#cc=} "* ]]; } ||
        { REPLY="${gate#cc=} is not loaded: modprobe tcp_${gate#cc=}"; return 1; } ;;
    esac
  done
}
