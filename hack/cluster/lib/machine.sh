# shellcheck shell=bash disable=SC2154 # the variables are those of the script that sources this
# What the cluster needs of the machine, and what it changes there.

need_machine() {
  [ "$(uname -s)" = Linux ] || { echo "cluster: needs Linux" >&2; exit 1; }
  [ "$(id -u)" = 0 ] || { echo "cluster: needs root: it makes a bridge, mounts and cgroups" >&2; exit 1; }
  # A Unix socket's path is at most 107 bytes, and the kubelet puts sockets deep below. White space would need quoting in /proc/mounts.
  [[ ${#state} -le 64 && ! $state =~ [[:space:]] ]] || {
    echo "cluster: CLUSTER_HOME must have no white space and be at most $((64 - ${#state} + ${#home})) characters: $home" >&2
    exit 1
  }
}

need_packages() {
  local missing=() pair
  for pair in runc:runc ip:iproute2 nft:nftables conntrack:conntrack buildah:buildah skopeo:skopeo openssl:openssl /usr/lib/cni/bridge:containernetworking-plugins; do
    command -v "${pair%%:*}" > /dev/null || missing+=("${pair#*:}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get > /dev/null || {
    echo "cluster: needs Debian's packages ${missing[*]}, and there is no apt-get to install them with" >&2
    exit 1
  }
  echo "cluster: installing ${missing[*]}" >&2
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"; } >&2
}

# There is one address plan, so there can be one cluster; and what down removes must have been made by up.
refuse_foreign() {
  local port owner table found=()
  for port in 2379 2380 6443 10248 10249 10250 10256 10257 10259; do
    owner=$(ss -Hltnp "sport = :$port")
    [ -z "$owner" ] || found+=("port $port is in use by $(grep -o 'users:.*' <<< "$owner" || echo "an unknown process")")
  done
  [ ! -e /sys/class/net/$bridge ] || found+=("a network interface $bridge exists")
  for owner in $pods $services; do
    [ -z "$(ip route show "$owner")" ] || found+=("a route to $owner exists: $(ip route show "$owner" | head -n 1)")
  done
  for table in "ip kube-proxy" "ip6 kube-proxy" "ip $nft_table"; do
    # shellcheck disable=SC2086 # two words
    ! nft list table $table > /dev/null 2>&1 || found+=("an nftables table '$table' exists")
  done
  [ -z "$(cgroups)" ] || found+=("another kubelet's cgroup exists: $(cgroups | head -n 1)")
  [ ${#found[@]} -gt 0 ] || return 0
  echo "cluster: refusing to start, since this machine has another cluster, or what one left:" >&2
  printf '    %s\n' "${found[@]}" >&2
  exit 1
}

cgroups() { # the kubelet's, one for each hierarchy on cgroup v1
  local group
  for group in /sys/fs/cgroup/kubepods /sys/fs/cgroup/*/kubepods; do
    [ ! -d "$group" ] || echo "$group"
  done
}

# Programs have these paths built in. Each goes with down if it wasn't there before up.
fixed_paths=(/var/lib/cni /var/lib/kubelet /var/log/containers /var/log/pods /run/containerd /run/netns /run/runc /run/nri /run/xtables.lock
  /etc/cni /etc/containerd /opt/cni /opt/containerd /opt/nri /usr/libexec/kubernetes)

# The kubelet, kube-proxy and the CNI plugins set these.
kernel_settings=(net/ipv4/ip_forward net/bridge/bridge-nf-call-iptables net/bridge/bridge-nf-call-ip6tables
  vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes
  net/netfilter/nf_conntrack_max net/netfilter/nf_conntrack_tcp_timeout_established
  net/netfilter/nf_conntrack_tcp_timeout_close_wait net/netfilter/nf_conntrack_tcp_be_liberal net/ipv4/conf/all/route_localnet)

remember_machine() {
  local path name
  for path in "${fixed_paths[@]}"; do
    [ -e "$path" ] || echo "$path"
  done > "$state/restore/paths"
  # The interfaces' own forwarding comes last: writing ip_forward sets all of them.
  for path in "${kernel_settings[@]/#//proc/sys/}" /proc/sys/net/ipv4/conf/*/forwarding; do
    [ ! -e "$path" ] || echo "$path $(cat "$path")"
  done > "$state/restore/sysctl"
}

prepare_machine() {
  # Replies between two pods pass the bridge only; without this they would miss the address translation of a Service.
  [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || modprobe br_netfilter || {
    echo "cluster: the kernel has no br_netfilter: Services would not work between pods" >&2
    exit 1
  }
  sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
  ip link add $bridge type bridge
  ip addr add $gateway/24 dev $bridge
  ip link set $bridge up
  # The host reaches Services from the gateway's address, with or without a default route.
  ip route add $services dev $bridge src $gateway
  # The CNI plugin's own masquerading would leave rules in tables that are shared with others.
  nft -f - << N
table ip $nft_table {
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr $pods ip daddr != { $pods, $services, 224.0.0.0/4 } masquerade
  }
}
N
}
