# shellcheck shell=bash
# What people and programs read. Text goes to standard output; with --json one object instead.
# Sourced by tuning/tune.

json_text() { # TEXT
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\t'/\\t}
  REPLY="\"${text//$'\n'/\\n}\""
}

json_object() { # NAME VALUE NAME VALUE...
  local objects='' name
  while (($#)); do
    name=$1
    json_text "$2"
    objects+="${objects:+, }\"$name\": $REPLY"
    shift 2
  done
  REPLY="{$objects}"
}

host_json() {
  local nic cards=''
  for nic in ${HOST_NICS[@]+"${HOST_NICS[@]}"}; do cards+="${cards:+ }$nic(${NIC_DRIVER[$nic]})"; done
  json_object kernel "$HOST_KERNEL" machine "$HOST_MACHINE" container "$HOST_CONTAINER" \
    cpus "$HOST_CPU_COUNT" memory_mib "$((HOST_RAM_KIB / 1024))" memory_nodes "$HOST_NODES" \
    cards "$cards" tuned "${HOST_TUNED:-no}" irqbalance "$HOST_IRQBALANCE"
}

print_host() {
  local nic
  printf 'profile %s on kernel %s, %s, container %s, %d CPUs, %d MiB, %d memory node(s)\n' "$PROFILE" \
    "$HOST_KERNEL" "$HOST_MACHINE" "$HOST_CONTAINER" "$HOST_CPU_COUNT" "$((HOST_RAM_KIB / 1024))" "$HOST_NODES"
  for nic in ${HOST_NICS[@]+"${HOST_NICS[@]}"}; do
    queue_count "$nic" rx
    printf 'card %s: %s, %d receive queue(s)\n' "$nic" "${NIC_DRIVER[$nic]}" "$REPLY"
  done
  find_program ethtool || ((${#HOST_NICS[@]} == 0)) || printf 'no ethtool: card settings cannot be read\n'
  [[ -z $HOST_TUNED ]] || printf 'tuned runs with profile %s; what it sets is left to it\n' "$HOST_TUNED"
  [[ $HOST_IRQBALANCE == no ]] || printf 'irqbalance runs; interrupts are left to it\n'
  print_server
}

# A running server keeps the limits it was started with.
print_server() {
  local line value
  [[ -n $HOST_RINGCAST_PID ]] || return 0
  line=$(grep -m1 '^Max open files' "$ROOT/proc/$HOST_RINGCAST_PID/limits" 2>/dev/null) || return 0
  read -r _ value _ <<<"${line#Max open files}"
  printf 'the running server (process %s) may open %s files; a new limit needs its restart\n' "$HOST_RINGCAST_PID" "$value"
}

# Items of one knob with one fate are one line: 32 CPUs are not 32 findings.
fold() { # INDEX OF ITEM
  FOLD_KEY="${I_KNOB[$1]}|${I_STATUS[$1]}|${I_NOTE[$1]}"
}

# Sums up by knob into the arrays F_*, in order.
fold_all() {
  local index
  local -A seen=()
  F_FIRST=() F_COUNT=() F_CURRENT=() F_WANTED=()
  for index in "${!I_ITEM[@]}"; do
    [[ ${I_STATUS[index]} != stale ]] || continue
    fold "$index"
    if [[ -z ${seen[$FOLD_KEY]+x} ]]; then
      seen[$FOLD_KEY]=${#F_FIRST[@]}
      F_FIRST+=("$index") F_COUNT+=(1) F_CURRENT+=("${I_CURRENT[index]}") F_WANTED+=("${I_WANTED[index]}")
      continue
    fi
    local at=${seen[$FOLD_KEY]}
    F_COUNT[at]=$((F_COUNT[at] + 1))
    [[ ${F_CURRENT[at]} == "${I_CURRENT[index]}" ]] || F_CURRENT[at]="(each its own)"
    [[ ${F_WANTED[at]} == "${I_WANTED[index]}" ]] || F_WANTED[at]="(each its own)"
  done
}

count_failed_required() {
  local index
  local -A failed=()
  for index in "${!I_ITEM[@]}"; do
    [[ ${I_STATUS[index]} != differs || ${K_need[I_KNOB[index]]} != required ]] || failed[${I_KNOB[index]}]=1
  done
  REPLY=${#failed[@]}
}

items_json() { # all|changes
  local at index knob objects=''
  fold_all
  for at in "${!F_FIRST[@]}"; do
    index=${F_FIRST[at]} knob=${I_KNOB[index]}
    [[ $1 == all || ${I_STATUS[index]} == differs ]] || continue
    item_command "${I_ITEM[index]}" "${I_WANTED[index]}" || REPLY=-
    json_object key "${K_key[knob]}" group "${K_group[knob]}" need "${K_need[knob]}" \
      item "${I_ITEM[index]}" count "${F_COUNT[at]}" current "${F_CURRENT[at]}" recommended "${F_WANTED[at]}" \
      status "${I_STATUS[index]}" note "${I_NOTE[index]}" fix "$REPLY" why "${K_why[knob]}" \
      impact "${K_effect[knob]}" hurts "${K_hurts[knob]}" source "${K_source[knob]}" undo "${K_undo[knob]}"
    objects+="${objects:+, }$REPLY"
  done
  REPLY="[$objects]"
}

print_json() { # COMMAND EXIT_CODE all|changes
  local items host
  items_json "$3"
  items=$REPLY
  host_json
  host=$REPLY
  printf '{"command": "%s", "profile": "%s", "exit_code": %d, "host": %s, "items": %s}\n' \
    "$1" "$PROFILE" "$2" "$host" "$items"
}

report_check() {
  local at index knob failed times
  count_failed_required
  failed=$((REPLY > 125 ? 125 : REPLY))
  if ((JSON)); then
    print_json check "$failed" all
    return "$failed"
  fi
  print_host
  fold_all
  for at in "${!F_FIRST[@]}"; do
    index=${F_FIRST[at]} knob=${I_KNOB[index]} times=''
    ((F_COUNT[at] == 1)) || times=" (${F_COUNT[at]} of them)"
    case ${I_STATUS[index]} in
      ok) printf 'ok       %s = %s%s\n' "${K_key[knob]}" "${F_CURRENT[at]}" "$times" ;;
      skipped) printf 'skipped  %s%s: %s\n' "${K_key[knob]}" "$times" "${I_NOTE[index]}"; continue ;;
      differs)
        printf 'differs  %s = %s, %s: %s%s\n' "${K_key[knob]}" "${F_CURRENT[at]}" "${K_need[knob]}" \
          "${F_WANTED[at]}" "$times"
        printf '         why: %s\n         impact: %s\n         hurts: %s\n         source: %s\n' \
          "${K_why[knob]}" "${K_effect[knob]}" "${K_hurts[knob]}" "${K_source[knob]}"
        ((F_COUNT[at] > 1)) || ! item_command "${I_ITEM[index]}" "${I_WANTED[index]}" ||
          printf '         fix: %s\n' "$REPLY" ;;
    esac
    [[ -z ${I_NOTE[index]} ]] || printf '         note: %s\n' "${I_NOTE[index]}"
  done
  printf '%d required setting(s) fail\n' "$failed"
  return "$failed"
}

report_diff() {
  local index code=0
  for index in "${!I_ITEM[@]}"; do [[ ${I_STATUS[index]} != differs ]] || code=1; done
  if ((JSON)); then
    print_json diff "$code" changes
    return "$code"
  fi
  fold_all
  for at in "${!F_FIRST[@]}"; do
    index=${F_FIRST[at]}
    [[ ${I_STATUS[index]} == differs ]] || continue
    printf -- '- %s = %s\n+ %s = %s\n' "${K_key[I_KNOB[index]]}" "${F_CURRENT[at]}" \
      "${K_key[I_KNOB[index]]}" "${F_WANTED[at]}"
  done
  return "$code"
}

report_plan() {
  local index knob advice=''
  if ((JSON)); then
    print_json plan 0 changes
    return 0
  fi
  print_host | sed 's/^/# /'
  load_state
  for index in "${!I_ITEM[@]}"; do
    knob=${I_KNOB[index]}
    [[ ${I_STATUS[index]} == differs ]] || continue
    if is_chosen "$index"; then
      remember "${I_ITEM[index]}" "${I_CURRENT[index]}" "${I_WANTED[index]}"
      [[ ${I_ITEM[index]} != limits:* ]] || continue
      item_command "${I_ITEM[index]}" "${I_WANTED[index]}"
      printf '%s    # now %s\n' "$REPLY" "${I_CURRENT[index]}"
    elif item_command "${I_ITEM[index]}" "${I_WANTED[index]}"; then
      advice+="# not done, ${K_need[knob]} ${K_key[knob]} (${I_NOTE[index]:-${K_group[knob]}}): $REPLY"$'\n'
    fi
  done
  printf '%s' "$advice"
  plan_files
}

plan_files() {
  if [[ -d $ROOT/etc/sysctl.d ]]; then
    text_of_sysctl
    print_file "$SYSCTL_FILE" "$REPLY"
  else
    text_of_sysctl
    [[ -z $REPLY ]] || printf '# no /etc/sysctl.d here: give them to the container (--sysctl KEY=VALUE) to make them last\n'
  fi
  text_of_limits
  print_file "$LIMITS_FILE" "$REPLY"
  has_systemd || return 0
  text_of_unit
  print_file "$UNIT_FILE" "$REPLY"
  text_of_udev
  print_file "$UDEV_FILE" "$REPLY"
}

print_file() { # PATH TEXT
  [[ -z $2 ]] || printf '# file /%s\n%s\n' "$1" "#   ${2//$'\n'/$'\n'#   }"
}

report_apply() { # FAILED
  local index
  if ((JSON)); then
    print_json apply "$1" all
    return
  fi
  for index in "${!I_ITEM[@]}"; do
    case ${I_STATUS[index]} in
      set) printf 'set      %s = %s (was %s)\n' "${I_ITEM[index]}" "${I_WANTED[index]}" "${I_CURRENT[index]}" ;;
      failed | rolled-back) printf '%-8s %s %s\n' "${I_STATUS[index]}" "${I_ITEM[index]}" "${I_NOTE[index]}" ;;
      skipped) printf 'skipped  %s: %s\n' "${I_ITEM[index]}" "${I_NOTE[index]}" ;;
      differs) printf 'left     %s = %s (%s, %s wanted) %s\n' "${I_ITEM[index]}" "${I_CURRENT[index]}" \
        "${K_need[I_KNOB[index]]}" "${I_WANTED[index]}" "${I_NOTE[index]}" ;;
    esac
  done
}

report_revert() { # REFUSED
  if ((JSON)); then
    printf '{"command": "revert", "reverted": %d, "refused": %d}\n' "$REVERTED" "$1"
  else
    printf '%d put back, %d refused\n' "$REVERTED" "$1"
  fi
}

VERIFIED=''
verify_line() { # STATUS ITEM NOW SET
  if ((JSON)); then
    json_object item "$2" status "$1" current "$3" set "$4"
    VERIFIED+="${VERIFIED:+, }$REPLY"
  else
    printf '%-8s %s = %s' "$1" "$2" "$3"
    [[ $1 == ok ]] || printf ' (was set to %s)' "$4"
    printf '\n'
  fi
}

verify_end() { # WRONG
  if ((JSON)); then
    printf '{"command": "verify", "exit_code": %d, "items": [%s]}\n' "$(($1 > 125 ? 125 : $1))" "$VERIFIED"
  else
    printf '%d not as applied\n' "$1"
  fi
}

# The README's tables: one a group, from the data file alone.
print_table() {
  local group line
  local -a field
  for group in $GROUPS_ALL; do
    printf '### %s\n\n| knob | need | edge-10g | edge-100g | latency | container | dev | why | effect | source | undo | when it hurts |\n' "$group"
    printf '|---|---|---|---|---|---|---|---|---|---|---|---|\n'
    while IFS=$'\t' read -ra field; do
      [[ ${field[1]} == "$group" ]] || continue
      line="| \`${field[0]}\` | ${field[2]} | ${field[6]} | ${field[7]} | ${field[8]} | ${field[9]} | ${field[10]}"
      line=${line//|/$'\x01'}
      line=${line//$' \x01 '/ | }
      line=${line/#$'\x01'/|}
      line=${line//$'\x01'/ or }
      printf '%s | %s | %s | %s | %s | %s |\n' "$line" "${field[11]}" "${field[12]}" "${field[13]}" \
        "\`${field[14]}\`" "${field[15]}"
    done <"$HERE/knobs.tsv"
    printf '\n'
  done
}
