# shellcheck shell=bash disable=SC2004  # keyed arrays
# An item is one value of this host: how to read it, how to write it, the command an operator would type.
# Its name tells where it is:
#
#   sysctl:KEY   nic:NIC:PROPERTY[:QUEUE]   irq:NIC:QUEUE   cpu:CPU:FILE   limits:DIRECTIVE   boot:NAME
#
# Interrupts are named by queue, because their numbers change from boot to boot. Sourced by tuning/tune.

# ethtool's words for our properties: the flag that shows, the label in its answer, the flag and name that set.
ethtool_words() { # PROPERTY
  case $1 in
    channels) REPLY='-l|Combined|-L|combined' ;;
    ring-rx) REPLY='-g|RX|-G|rx' ;;
    ring-tx) REPLY='-g|TX|-G|tx' ;;
    adaptive-rx) REPLY='-c|Adaptive RX|-C|adaptive-rx' ;;
    rx-usecs) REPLY='-c|rx-usecs|-C|rx-usecs' ;;
    gro) REPLY='-k|generic-receive-offload|-K|gro' ;;
    gso) REPLY='-k|generic-segmentation-offload|-K|gso' ;;
    tso) REPLY='-k|tcp-segmentation-offload|-K|tso' ;;
    lro) REPLY='-k|large-receive-offload|-K|lro' ;;
    *) return 1 ;;
  esac
}

# Current value in REPLY and the card's own maximum, if it says one, in REPLY_MAX.
read_ethtool() { # NIC PROPERTY
  local show label line value='' max='' section=current words
  ethtool_words "$2" || return 1
  IFS='|' read -r show label _ _ <<<"$REPLY"
  words=$show:$1
  [[ -n ${ETHTOOL_SAID[$words]+x} ]] || ETHTOOL_SAID[$words]=$(run_program ethtool "$show" "$1" 2>/dev/null || true)
  while IFS= read -r line; do
    case $line in
      *maximums:*) section=max ;;
      "Current hardware settings:"*) section=current ;;
    esac
    [[ $line =~ ^[[:space:]]*"$label":[[:space:]]+([^[:space:]]+)(.*)$ ]] || continue
    # What the card has fixed cannot be set.
    [[ ${BASH_REMATCH[2]} != *"[fixed]"* && ${BASH_REMATCH[1]} != n/a ]] || continue
    if [[ $section == max ]]; then max=${BASH_REMATCH[1]}; else value=${BASH_REMATCH[1]}; fi
  done <<<"${ETHTOOL_SAID[$words]}"
  REPLY=$value REPLY_MAX=$max
  [[ -n $value ]]
}

# Number of the interrupt of a queue of a card, in REPLY. Names differ by driver, all end in the queue.
irq_of_queue() { # NIC QUEUE
  local nic=$1 queue=$2 dir line name tail device allowed=' '
  device=$(readlink -f "$ROOT/sys/class/net/$nic/device" || true)
  for dir in "$device/msi_irqs" "${device%/*}/msi_irqs"; do
    [[ ! -d $dir ]] || { allowed+=$(cd "$dir" && printf '%s ' *); break; }
  done
  REPLY=
  [[ -r $ROOT/proc/interrupts ]] || return 1
  while IFS= read -r line; do
    [[ $line =~ ^[[:space:]]*([0-9]+):.*[[:space:]]([^[:space:]]+)$ ]] || continue
    name=${BASH_REMATCH[2]}
    if [[ $allowed != ' ' ]]; then
      [[ $allowed == *" ${BASH_REMATCH[1]} "* ]] || continue
    else
      [[ $name == "$nic"-* || $name == "${device##*/}"-* ]] || continue
    fi
    tail=${name%%@*}
    [[ $tail =~ (TxRx|Tx-Rx|comp|input|rx|ntfy-blk|ntfy-block|fp)[-._]?([0-9]+)$ ]] || continue
    if ((BASH_REMATCH[2] == queue)); then
      line=${line#"${line%%[![:space:]]*}"}
      REPLY=${line%%:*}
      return 0
    fi
  done <"$ROOT/proc/interrupts"
  return 1
}

# Number of receive or transmit queues of a card, in REPLY.
queue_count() { # NIC rx|tx
  local -a dirs=("$ROOT/sys/class/net/$1/queues/$2"-[0-9]*)
  REPLY=0
  [[ ! -e ${dirs[0]} ]] || REPLY=${#dirs[@]}
}

# File of an item below ROOT, in REPLY; fails for what is not a file.
item_file() { # ITEM
  local -a part
  IFS=: read -ra part <<<"$1"
  case $1 in
    sysctl:*) REPLY=proc/sys/${part[1]//.//} ;;
    nic:*:rps:*) REPLY=sys/class/net/${part[1]}/queues/rx-${part[3]}/rps_cpus ;;
    nic:*:xps:*) REPLY=sys/class/net/${part[1]}/queues/tx-${part[3]}/xps_cpus ;;
    irq:*) irq_of_queue "${part[1]}" "${part[2]}" || return 1
      REPLY=proc/irq/$REPLY/smp_affinity_list ;;
    cpu:all:thp) REPLY=sys/kernel/mm/transparent_hugepage/enabled ;;
    cpu:*:governor) REPLY=sys/devices/system/cpu/cpu${part[1]}/cpufreq/scaling_governor ;;
    cpu:*:epp) REPLY=sys/devices/system/cpu/cpu${part[1]}/cpufreq/energy_performance_preference ;;
    cpu:*:wakeup-us) REPLY=sys/devices/system/cpu/cpu${part[1]}/power/pm_qos_resume_latency_us ;;
    *) return 1 ;;
  esac
}

# Value of a directive for the service in REPLY: the last drop-in wins; without a unit, of this shell.
read_limit() { # DIRECTIVE
  local file line value='' label
  local -a files=()
  if unit_file; then files+=("$REPLY"); fi
  for file in "$ROOT"/etc/systemd/system/ringcast.service.d/*.conf; do files+=("$file"); done
  if unit_file; then
    for file in "${files[@]}"; do
      [[ -r $file ]] || continue
      while IFS= read -r line || [[ -n $line ]]; do
        [[ ! $line =~ ^[[:space:]]*$1[[:space:]]*=[[:space:]]*([^[:space:]]+) ]] || value=${BASH_REMATCH[1]}
      done <"$file"
    done
    REPLY=${value:-unset}
    REPLY=${REPLY##*:}
    return 0
  fi
  case $1 in
    LimitNOFILE) label='Max open files' ;;
    LimitMEMLOCK) label='Max locked memory' ;;
    *) return 1 ;;
  esac
  line=$(grep -m1 "^$label" "$ROOT/proc/self/limits" 2>/dev/null) || return 1
  read -r _ value _ <<<"${line#"$label"}"
  [[ $value != unlimited ]] || value=infinity
  REPLY=$value
}

# The unit of the server in REPLY.
unit_file() {
  local dir
  for dir in etc/systemd/system usr/local/lib/systemd/system usr/lib/systemd/system lib/systemd/system; do
    [[ ! -r $ROOT/$dir/ringcast.service ]] || { REPLY=$ROOT/$dir/ringcast.service; return 0; }
  done
  return 1
}

# Conditions no file of ours sets.
read_condition() { # NAME
  case $1 in
    host.kernel) [[ $HOST_KERNEL =~ ^([0-9]+\.[0-9]+) ]] && REPLY=${BASH_REMATCH[1]} ;;
    host.clocksource) read_line sys/devices/system/clocksource/clocksource0/current_clocksource ;;
    module.tls) REPLY=absent
      [[ ! -e $ROOT/proc/net/tls_stat && ! -d $ROOT/sys/module/tls ]] || REPLY=loaded ;;
    conntrack.notrack) REPLY=tracked
      ! run_program nft list table inet ringcast >/dev/null 2>&1 || REPLY=notrack ;;
    boot.iommu) REPLY=translated
      ! grep -qw 'iommu=pt' "$ROOT/proc/cmdline" 2>/dev/null || REPLY=iommu=pt ;;
    boot.isolation) REPLY=none
      ! grep -q 'isolcpus=' "$ROOT/proc/cmdline" 2>/dev/null || REPLY=isolcpus ;;
    *) return 1 ;;
  esac
}

# Current value in REPLY, the card's maximum in REPLY_MAX. Fails when this host does not have it.
item_read() { # ITEM
  local -a part
  REPLY_MAX=
  IFS=: read -ra part <<<"$1"
  case $1 in
    limits:*) read_limit "${part[1]}" ;;
    boot:*) read_condition "${part[1]}" ;;
    nic:*:rps:* | nic:*:xps:* | sysctl:* | irq:* | cpu:*)
      item_file "$1" && read_line "$REPLY" || return 1
      # The huge page switch shows all choices and brackets the one taken.
      [[ $1 != cpu:all:thp || ! $REPLY =~ \[([a-z]+)\] ]] || REPLY=${BASH_REMATCH[1]} ;;
    nic:*) read_ethtool "${part[1]}" "${part[2]}" ;;
    *) return 1 ;;
  esac
}

# Writes a value. Limits are written as one file, by persist_limits.
item_write() { # ITEM VALUE
  local -a part
  local set name
  IFS=: read -ra part <<<"$1"
  case $1 in
    limits:*) return 0 ;;
    boot:*) return 1 ;;
  esac
  if item_file "$1"; then
    { printf '%s\n' "$2" >"$ROOT/$REPLY"; } 2>/dev/null
    return
  fi
  [[ $1 == nic:* ]] && ethtool_words "${part[2]}" || return 1
  IFS='|' read -r _ _ set name <<<"$REPLY"
  ETHTOOL_SAID=()
  run_program ethtool "$set" "${part[1]}" "$name" "$2" >/dev/null 2>&1
}

# What an operator would type for the same, in REPLY.
item_command() { # ITEM VALUE
  local -a part
  local set name
  IFS=: read -ra part <<<"$1"
  case $1 in
    sysctl:*) REPLY="sysctl -w ${part[1]}=$2"
      [[ $2 != *' '* ]] || REPLY="sysctl -w ${part[1]}=\"$2\"" ;;
    limits:*) REPLY="${part[1]}=$2 in the drop-in of ringcast.service" ;;
    boot:*) print_advice "${part[1]}" ;;
    *)
      if item_file "$1"; then
        REPLY="echo $2 > /$REPLY"
      elif ethtool_words "${part[2]-}"; then
        IFS='|' read -r _ _ set name <<<"$REPLY"
        REPLY="ethtool $set ${part[1]} $name $2"
      fi ;;
  esac
}

# For what is never done, only said.
print_advice() { # NAME
  case $1 in
    host.kernel) REPLY="install a newer kernel" ;;
    host.clocksource) REPLY="kernel parameter clocksource=tsc, if the kernel has not found it unstable" ;;
    module.tls) REPLY="modprobe tls && echo tls > /etc/modules-load.d/ringcast.conf" ;;
    conntrack.notrack) REPLY="nft 'add table inet ringcast; add chain inet ringcast in { type filter hook prerouting priority raw; }; add rule inet ringcast in tcp dport 1935 notrack; add chain inet ringcast out { type filter hook output priority raw; }; add rule inet ringcast out tcp sport 1935 notrack'" ;;
    boot.iommu) REPLY="kernel parameter iommu=pt" ;;
    boot.isolation) REPLY="kernel parameters isolcpus=LIST nohz_full=LIST rcu_nocbs=LIST, LIST being the CPUs of workers.cpus" ;;
    *) return 1 ;;
  esac
}
