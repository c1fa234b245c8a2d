# shellcheck shell=bash disable=SC2154 # the variables are those of the script that sources this
# Ends the cluster, however much of it there is, and takes away what it left on the machine.

down() {
  end_processes
  [ -d "$state" ] || return 0 # without a state directory the rest is not ours
  forget_containers
  unmount
  remove_network
  remove_cgroups
  restore_machine
  rm -rf --one-file-system "$state" "$home"/load.*
}

# Programs of ours that were started on this state directory. Found by what they run, not by the process ids written down: it holds
# when up was cut off, and for shims, whose ids nobody writes down.
processes() {
  local directory words
  for directory in /proc/[0-9]*; do
    mapfile -d '' -t words 2> /dev/null < "$directory/cmdline" || continue
    [[ ${#words[@]} -gt 0 && ${words[0]} == "$bin"/* && "${words[*]}" == *"$state"* ]] || continue
    echo "${directory#/proc/}"
  done 2> /dev/null
}

contained() { # the processes in pods
  local group
  for group in $(cgroups); do
    find "$group" -name cgroup.procs -exec cat {} + 2> /dev/null || true
  done | sort -u
}

# The state is thrown away, so there is nothing to end gently, and containerd's image store is written to survive that.
end_processes() {
  local end=$((SECONDS + 10)) pids
  while pids=$(processes; [ ! -d "$state" ] || contained); [ -n "$pids" ]; do
    # shellcheck disable=SC2086 # one word each
    kill -KILL $pids 2> /dev/null || true
    [ $SECONDS -lt $end ] || { echo "cluster: these processes don't end:" $pids >&2; return 1; }
    sleep 0.05
  done
}

# The image store is kept; containers in it would be taken for running ones by the next run. containerd itself removes them, without
# its CRI half, which would try to recover them. Where it cannot even start, as with a broken program, the rest of down goes on.
forget_containers() {
  [ -d "$images/io.containerd.metadata.v1.bolt" ] && [ -e "$state/containerd.toml" ] || return 0
  { echo "disabled_plugins = ['io.containerd.grpc.v1.cri']"; cat "$state/containerd.toml"; } > "$state/forget.toml"
  mkdir -p "$state/log"
  if ! (
    start containerd --config "$state/forget.toml"
    await 20 containerd ctr version
    ctr containers ls -q | forget containers rm
    ctr sandboxes ls | awk 'NR > 1 { print $1 }' | forget sandboxes rm --force
    ctr leases ls -q | forget leases rm
  ) 2> /dev/null; then
    echo "cluster: the image store may still have containers in it; 'cluster clean' removes it" >&2
  fi
  end_processes
  rm -rf "$images"/io.containerd.grpc.v1.cri/{containers,sandboxes} "$images/io.containerd.runtime.v2.task/k8s.io"
}

forget() { # ctr's command; names on standard input
  xargs -r -n 1 "$bin/ctr" --address "$sock" --namespace k8s.io "$@" > /dev/null
}

unmount() {
  local point
  awk -v home="$home/" 'index($2, home) == 1 { print $2 }' /proc/mounts | sort -r | while read -r point; do
    umount "$point" 2> /dev/null || umount -l "$point" || true
  done
}

remove_network() {
  local link family
  if [ -e /sys/class/net/$bridge ]; then
    for link in /sys/class/net/$bridge/brif/*; do
      [ ! -e "$link" ] || ip link del "${link##*/}" 2> /dev/null || true # gone with its namespace, perhaps
    done
    ip link del $bridge
  fi
  for family in ip ip6; do
    nft delete table $family kube-proxy 2> /dev/null || true
  done
  nft delete table ip $nft_table 2> /dev/null || true
}

remove_cgroups() {
  local group end=$((SECONDS + 5))
  for group in $(cgroups); do
    until find "$group" -depth -type d -exec rmdir {} + 2> /dev/null || [ ! -d "$group" ]; do
      [ $SECONDS -lt $end ] || { echo "cluster: cannot remove $group" >&2; return 1; }
      sleep 0.05 # a killed process leaves its group a moment after it is gone from /proc
    done
  done
}

restore_machine() {
  local path value
  rm -f /var/lib/cni/results/dropout-*
  # The kubelet links each container's log here, and the next loop takes the directory only if it is new.
  find /var/log/containers -maxdepth 1 -lname "$state/*" -delete 2> /dev/null || true
  [ ! -e "$state/restore/paths" ] || while read -r path; do
    rm -rf --one-file-system "$path"
  done < "$state/restore/paths"
  [ ! -e "$state/restore/sysctl" ] || while read -r path value; do
    # Only what differs: writing ip_forward, even its own value, resets the interfaces' settings.
    [ ! -e "$path" ] || [ "$(cat "$path")" = "$value" ] || echo "$value" > "$path"
  done < "$state/restore/sysctl"
}
