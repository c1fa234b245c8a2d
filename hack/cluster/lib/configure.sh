# shellcheck shell=bash disable=SC2154 # the variables are those of the script that sources this
# Certificates, kubeconfigs and the components' configuration files.

certificate() { # name subject [alternative names]
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$1.key" -out "$1.csr" -subj "$2" 2> /dev/null
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -out "$1.crt" -days 365 \
    -extfile <(echo "subjectAltName=${3:-DNS:localhost}") 2> /dev/null
}

kubeconfig() { # name
  cat > "$state/$1.kubeconfig" << K
apiVersion: v1
kind: Config
clusters: [{name: local, cluster: {server: "https://127.0.0.1:6443", certificate-authority: $state/pki/ca.crt}}]
users: [{name: $1, user: {client-certificate: $state/pki/$1.crt, client-key: $state/pki/$1.key}}]
contexts: [{name: local, context: {cluster: local, user: $1}}]
current-context: local
K
}

identities() {
  local name=kubernetes.default.svc user
  pushd "$state/pki" > /dev/null
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.crt -days 365 -subj /CN=cluster-ca 2> /dev/null
  openssl ecparam -genkey -name prime256v1 -noout -out sa.key
  openssl ec -in sa.key -pubout -out sa.pub 2> /dev/null
  certificate apiserver /CN=kube-apiserver \
    "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:$name,DNS:$name.cluster.local,IP:127.0.0.1,IP:${services%.*.*}.0.1,IP:$gateway"
  certificate admin /O=system:masters/CN=admin
  certificate controller-manager /CN=system:kube-controller-manager
  certificate scheduler /CN=system:kube-scheduler
  certificate kubelet /O=system:nodes/CN=system:node:$node "DNS:$node,IP:127.0.0.1,IP:$gateway"
  certificate proxy /CN=system:kube-proxy
  certificate coredns /CN=coredns
  certificate provisioner /CN=provisioner
  for user in admin controller-manager scheduler kubelet proxy coredns provisioner; do kubeconfig $user; done
  popd > /dev/null
}

configure() {
  cat > "$state/audit-policy.yaml" << K
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
K
  cat > "$state/cni/10-bridge.conflist" << K
{"cniVersion": "1.0.0", "name": "dropout", "plugins": [
  {"type": "bridge", "bridge": "$bridge", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$state/cni/leases", "ranges": [[{"subnet": "$pods"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
K
  # Every pull is refused at once by a port where nobody listens: images come by 'cluster load' only, and a name that
  # was not loaded shows up as ErrImagePull within a second, with no look-up that may hang.
  mkdir -p "$state/registries/_default"
  echo 'server = "http://127.0.0.1:1"' > "$state/registries/_default/hosts.toml"
  # root is kept between runs, state is not. What has a default below /run gets a place in the state directory instead.
  cat > "$state/containerd.toml" << K
version = 3
root = "$images"
state = "$state/containerd"
[grpc]
  address = "$sock"
[ttrpc]
  address = "$sock.ttrpc"
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "localhost/pause:1"
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = "$state/registries"
[plugins.'io.containerd.transfer.v1.local']
  config_path = "$state/registries"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  Root = "$state/runc"
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "$state/cni"
K
  # imageGCHighThresholdPercent 100: the kubelet never removes a loaded image, which it could not pull again.
  cat > "$state/kubelet.yaml" << K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $state/pki/ca.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
clusterDNS: [$gateway]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://$sock
tlsCertFile: $state/pki/kubelet.crt
tlsPrivateKeyFile: $state/pki/kubelet.key
resolvConf: ""
podLogsDir: $state/log/pods
volumePluginDir: $state/kubelet/flexvolumes
makeIPTablesUtilChains: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 2%, imagefs.available: 2%}
maxPods: 200
K
  cat > "$state/proxy.yaml" << K
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: $pods
hostnameOverride: $node
nodePortAddresses: ["$gateway/32"]
nftables: {minSyncPeriod: 100ms}
clientConnection: {kubeconfig: $state/proxy.kubeconfig}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
K
  # No forwarding: a name outside the cluster does not exist, on every machine and at once. That takes a block of its own,
  # since CoreDNS asks its template plugin before its kubernetes plugin.
  cat > "$state/Corefile" << K
cluster.local in-addr.arpa ip6.arpa {
    bind $gateway
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        kubeconfig $state/coredns.kubeconfig
    }
    cache 5
}
. {
    bind $gateway
    template ANY ANY . {
        rcode NXDOMAIN
    }
}
K
}
