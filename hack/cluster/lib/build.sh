# shellcheck shell=bash disable=SC2154 # the variables are those of the script that sources this
# Builds the programs from the Go modules beside the script.

build() {
  local stamp="-X k8s.io/component-base/version.gitVersion=$version -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"
  local module what sum
  mkdir -p "$bin"
  for module in pause kubernetes containerd coredns helm provisioner; do
    sum=$(cat "$here/$module"/* <(echo "$stamp") | sha256sum)
    [ "$(cat "$bin/.$module" 2> /dev/null)" != "$sum" ] || continue
    command -v go > /dev/null || { echo "cluster: building needs go, version 1.26 or newer" >&2; return 1; }
    echo "building $module" >&2
    what=tool # every tool of the go.mod, or the module's own program
    [ ! -e "$here/$module/main.go" ] || what=.
    (cd "$here/$module" && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w $stamp" \
      -tags "no_btrfs no_devmapper no_zfs" -o "$bin/" $what)
    [ ! -e "$bin/server" ] || mv "$bin/server" "$bin/etcd" # etcd's main package is called server
    echo "$sum" > "$bin/.$module"
  done
}
