# shellcheck shell=bash disable=SC2004  # keyed arrays
# What was changed and what it was before, and the files that make it last. One line an item in
# /var/lib/ringcast/tune.state: name, previous value, value set. Files we wrote are there with the checksum of what we wrote;
# one that somebody edited since is neither overwritten nor removed. Sourced by tuning/tune.

readonly STATE_DIR=var/lib/ringcast
readonly COPY_DIR=usr/local/lib/ringcast-tuning
readonly SYSCTL_FILE=etc/sysctl.d/90-ringcast.conf
readonly LIMITS_FILE=etc/systemd/system/ringcast.service.d/90-ringcast-tune.conf
readonly UNIT_FILE=etc/systemd/system/ringcast-tune.service
readonly UDEV_FILE=etc/udev/rules.d/90-ringcast-tune.rules
readonly MARK='# Written by tuning/tune; tune revert removes it.'

load_state() {
  local item previous value file=$ROOT/$STATE_DIR/tune.state
  S_ITEMS=() S_PREVIOUS=() S_VALUE=()
  [[ -e $file ]] || return 0
  [[ -r $file ]] || fail_usage "/$STATE_DIR/tune.state is for root to read"
  # What it names is written as root, so nobody else may have written it.
  if [[ -z $ROOT && $(stat -c '%u %A' "$file") != "0 -rw-------" ]]; then
    fail_usage "/$STATE_DIR/tune.state does not belong to root alone; not read"
  fi
  while IFS=$'\t' read -r item previous value; do
    [[ -n $item ]] || continue
    S_ITEMS+=("$item") S_PREVIOUS[$item]=$previous S_VALUE[$item]=$value
  done <"$file"
}

# Replaces the file at once, so that a crash leaves the old or the new one.
save_state() {
  local item file=$ROOT/$STATE_DIR/tune.state
  mkdir -p "${file%/*}"
  if ((${#S_ITEMS[@]} == 0)); then
    rm -f "$file"
    return
  fi
  (
    umask 077
    for item in "${S_ITEMS[@]}"; do
      printf '%s\t%s\t%s\n' "$item" "${S_PREVIOUS[$item]}" "${S_VALUE[$item]}"
    done >"$file.new"
  )
  mv "$file.new" "$file"
}

# The previous value is that of the first time; applying again does not forget it.
remember() { # ITEM PREVIOUS VALUE
  if [[ -z ${S_PREVIOUS[$1]+x} ]]; then
    S_ITEMS+=("$1")
    S_PREVIOUS[$1]=$2
  fi
  S_VALUE[$1]=$3
}

forget() { # ITEM
  local item
  local -a left=()
  for item in "${S_ITEMS[@]}"; do [[ $item == "$1" ]] || left+=("$item"); done
  S_ITEMS=(${left[@]+"${left[@]}"})
  unset "S_PREVIOUS[$1]" "S_VALUE[$1]"
}

checksum() { # FILE
  local words
  words=$(sha256sum <"$1")
  REPLY=${words%% *}
}

# Writes, or with no text removes, one of our files. Refuses what somebody else wrote or edited.
own_file() { # PATH TEXT
  local file=$ROOT/$1 known
  known=${S_VALUE[file:$1]-}
  if [[ -e $file ]]; then
    checksum "$file"
    if [[ $REPLY != "$known" ]]; then
      [[ $(<"$file") != "$2" ]] || { remember "file:$1" absent "$REPLY"; return 0; }
      say "refused: /$1 was not written by tune or was edited since; move your lines to a file of your own"
      return 1
    fi
  fi
  if [[ -z $2 ]]; then
    rm -f "$file"
    [[ -z $known ]] || forget "file:$1"
    return 0
  fi
  mkdir -p "${file%/*}"
  printf '%s\n' "$2" >"$file.new" && mv "$file.new" "$file" || return 1
  checksum "$file"
  remember "file:$1" absent "$REPLY"
}

# Text of the three kinds of files in REPLY, empty when nothing remains for it.
text_of_sysctl() {
  local item lines=''
  for item in ${S_ITEMS[@]+"${S_ITEMS[@]}"}; do
    [[ $item != sysctl:* ]] || lines+=$'\n'"${item#sysctl:} = ${S_VALUE[$item]}"
  done
  REPLY=${lines:+$MARK$lines}
}

text_of_limits() {
  local item lines=''
  for item in ${S_ITEMS[@]+"${S_ITEMS[@]}"}; do
    [[ $item != limits:* ]] || lines+=$'\n'"${item#limits:}=${S_VALUE[$item]}"
  done
  REPLY=${lines:+$MARK$'\n'"[Service]"$lines}
}

# Cards and interrupts forget at boot and when the driver starts anew. The unit computes them again,
# because numbers of interrupts change; it runs a copy that only root can write.
text_of_unit() {
  local item groups='' group
  for group in nic irq cpu; do
    for item in ${S_ITEMS[@]+"${S_ITEMS[@]}"}; do
      [[ $item != "$group":* ]] || { groups+=${groups:+,}$group; break; }
    done
  done
  REPLY=
  [[ -n $groups ]] || return 0
  REPLY="$MARK
[Unit]
Description=Ringcast host settings that do not outlive a boot
After=network-pre.target systemd-udev-settle.service
Before=ringcast.service

[Service]
Type=oneshot
ExecStart=/usr/bin/env bash /$COPY_DIR/tune apply --boot --profile $PROFILE --only $groups${NIC_GIVEN:+ --nic $NIC_GIVEN}${CPUS_GIVEN:+ --cpus $CPUS_GIVEN}${WITH:+ --with $WITH}

[Install]
WantedBy=multi-user.target"
}

text_of_udev() {
  local item nic lines='' seen=' '
  for item in ${S_ITEMS[@]+"${S_ITEMS[@]}"}; do
    [[ $item == nic:* || $item == irq:* ]] || continue
    nic=${item#*:}
    nic=${nic%%:*}
    [[ $seen != *" $nic "* ]] || continue
    seen+="$nic "
    lines+=$'\n'"ACTION==\"add\", SUBSYSTEM==\"net\", KERNEL==\"$nic\", TAG+=\"systemd\", ENV{SYSTEMD_WANTS}+=\"ringcast-tune.service\""
  done
  REPLY=${lines:+$MARK$lines}
}

has_systemd() {
  [[ -d $ROOT/run/systemd/system ]]
}

# Brings all files in line with the state.
persist() {
  local status=0 unit
  if [[ -d $ROOT/etc/sysctl.d || -n ${S_VALUE[file:$SYSCTL_FILE]-} ]]; then
    text_of_sysctl
    own_file "$SYSCTL_FILE" "$REPLY" || status=1
  else
    text_of_sysctl
    [[ -z $REPLY ]] || say "note: no /etc/sysctl.d here: kernel settings last until this container or host ends"
  fi
  text_of_limits
  own_file "$LIMITS_FILE" "$REPLY" || status=1
  text_of_unit
  unit=$REPLY
  if has_systemd || [[ -n ${S_VALUE[file:$UNIT_FILE]-} ]]; then
    if [[ -z $unit && -n ${S_VALUE[file:$UNIT_FILE]-} ]] && has_systemd; then
      run_program systemctl --quiet disable ringcast-tune.service >/dev/null 2>&1 || true
    fi
    own_file "$UNIT_FILE" "$unit" || status=1
    text_of_udev
    own_file "$UDEV_FILE" "${unit:+$REPLY}" || status=1
    if [[ -n $unit ]]; then keep_copy || status=1; else rm -rf "${ROOT:?/}/$COPY_DIR"; fi
    if has_systemd; then
      # The drop-in of the server's limits counts from here on, too.
      run_program systemctl daemon-reload >/dev/null 2>&1 || say "note: systemctl daemon-reload failed"
      [[ -z $unit ]] || run_program systemctl --quiet enable ringcast-tune.service >/dev/null 2>&1 ||
        say "note: enable it yourself: systemctl enable ringcast-tune.service"
    fi
  elif [[ -n $unit ]]; then
    say "note: no systemd here: repeat tune apply --boot after each start"
  fi
  return "$status"
}

keep_copy() {
  local to=$ROOT/$COPY_DIR
  [[ $HERE != "$to" ]] || return 0
  mkdir -p "$to/lib"
  cp "$HERE/tune" "$HERE/knobs.tsv" "$to/" && cp "$HERE"/lib/*.sh "$to/lib/"
}
